//! Graceful restart, both roles (RFC 4724, RFC 8538).
