{{- define "takhin-operator.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "takhin-operator.selector" -}}
app.kubernetes.io/name: takhin-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "takhin-operator.labels" -}}
{{ include "takhin-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: takhin
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "takhin-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "takhin-operator.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "takhin-operator.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry -}}
{{- if $registry }}{{ $registry }}/{{ end -}}
{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "takhin-operator.defaultImage" -}}
{{- $registry := .root.Values.global.imageRegistry -}}
{{- if .own }}{{ .own }}{{ else }}{{ if $registry }}{{ $registry }}/{{ end }}takhin/takhin:{{ .root.Chart.AppVersion }}{{ end -}}
{{- end }}
