{{- define "roofleet.name" -}}
{{- printf "%s-roofleet" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "roofleet.selector" -}}
app.kubernetes.io/name: roofleet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "roofleet.labels" -}}
{{ include "roofleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "roofleet.image" -}}
image: {{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .image.pullPolicy | default "IfNotPresent" }}
{{- end -}}

{{/* What every pod has: nobody's rights, and no way to the cluster's interface. */}}
{{- define "roofleet.pod" -}}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "roofleet.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "roofleet.tls" -}}
{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "roofleet.name" .)) }}
{{- end -}}

{{- define "roofleet.tokens" -}}
{{ .Values.tokens.existingSecret | default (printf "%s-tokens" (include "roofleet.name" .)) }}
{{- end -}}

{{- define "roofleet.token" -}}
{{ printf "rft_%s_%s" (randAlphaNum 32 | sha256sum | trunc 8) (randAlphaNum 43) }}
{{- end -}}
