//! ROUTE-REFRESH (RFC 2918; subtypes RFC 7313).

use crate::cursor::Cursor;
use crate::notification::{code, route_refresh_error};
use crate::{Family, MessageError, header};

/// A ROUTE-REFRESH message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// The family to send again.
    pub family: Family,
    /// 0 request, 1 beginning of a refresh, 2 its end (RFC 7313 §3.2). Any other is to be ignored.
    pub subtype: u8,
}

impl RouteRefresh {
    /// Subtype of a request to send a family again (RFC 2918).
    pub const REQUEST: u8 = 0;
    /// Subtype of BoRR: what follows is the whole family (RFC 7313 §3.2).
    pub const BEGIN: u8 = 1;
    /// Subtype of EoRR: what was not sent since BoRR is gone (RFC 7313 §3.2).
    pub const END: u8 = 2;

    /// A request to send a family again.
    #[must_use]
    pub fn request(family: Family) -> Self {
        Self {
            family,
            subtype: Self::REQUEST,
        }
    }

    /// Reads a whole message, header included: the error for a bad length carries it as data.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, MessageError> {
        let mut body = Cursor::new(frame.get(header::LEN..).unwrap_or_default());
        let bad_length = || {
            MessageError::new(
                "ROUTE-REFRESH: length is not 23",
                code::ROUTE_REFRESH,
                route_refresh_error::INVALID_MESSAGE_LENGTH,
                frame,
            )
        };
        let (Some(afi), Some(subtype), Some(safi)) = (body.u16(), body.u8(), body.u8()) else {
            return Err(bad_length());
        };
        // RFC 7313 §5 checks the length of BoRR and EoRR only: a request may carry ORF entries (RFC 5291 §4).
        if matches!(subtype, Self::BEGIN | Self::END) && !body.is_empty() {
            return Err(bad_length());
        }
        Ok(Self {
            family: Family { afi, safi },
            subtype,
        })
    }

    /// Writes the whole message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = header::begin(out, header::kind::ROUTE_REFRESH);
        out.extend_from_slice(&self.family.afi.to_be_bytes());
        out.extend_from_slice(&[self.subtype, self.family.safi]);
        header::finish(out, start);
    }
}
