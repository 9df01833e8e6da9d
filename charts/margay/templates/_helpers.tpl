{{- define "margay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "margay.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What a selector may hold: it can never be changed. */}}
{{- define "margay.selector" -}}
app.kubernetes.io/name: {{ include "margay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "margay.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "margay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "margay.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "margay.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "margay.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* Root on the node's file system, for the folders that belong to it, and nothing else. */}}
{{- define "margay.plainSecurityContext" -}}
runAsUser: 0
runAsGroup: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Names of the Secrets that hold passwords, one a line. */}}
{{- define "margay.passwordSecrets" -}}
{{- $names := .Values.passwordSecrets }}
{{- with dig "nodeMeshPassword" "secretKeyRef" "name" "" .Values.bgp.configuration }}
{{- $names = append $names . }}
{{- end }}
{{- range $spec := .Values.bgp.peers }}
{{- with dig "password" "secretKeyRef" "name" "" $spec }}
{{- $names = append $names . }}
{{- end }}
{{- end }}
{{- $names | uniq | sortAlpha | join "\n" }}
{{- end }}

{{- /* Everywhere. */}}
{{- define "margay.check" -}}
{{- $inline := or .Values.bgp.configuration .Values.bgp.nodeConfigurations .Values.bgp.peers .Values.bgp.filters .Values.ipPools }}
{{- if and (eq .Values.config.source "directory") $inline }}
{{- fail "bgp and ipPools are objects of the API server, which config.source: directory does not read: write them to files in config.directory on each node" }}
{{- end }}
{{- $watched := or .Values.metrics.podMonitor.enabled .Values.metrics.prometheusRule.enabled }}
{{- if and $watched (not .Values.metrics.enabled) }}
{{- fail "metrics.podMonitor and metrics.prometheusRule need metrics.enabled: true" }}
{{- end }}
{{- end }}
