{{/* Labels of everything the chart makes. */}}
{{- define "noderuntime.labels" -}}
app.kubernetes.io/name: noderuntime
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels by which the operator's pod is found. */}}
{{- define "noderuntime.operatorLabels" -}}
app.kubernetes.io/name: noderuntime
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The image, by digest where one is given. */}}
{{- define "noderuntime.image" -}}
{{- $repository := required "image.repository is required: build an image with `make image IMAGE=<repository>:<tag>` and name it with --set image.repository=<repository>,image.tag=<tag>" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What the operator puts into the agents' pods. */}}
{{- define "noderuntime.agentSettings" -}}
{{- dict
  "namespace" .Release.Namespace
  "image" (include "noderuntime.image" .)
  "imagePullPolicy" .Values.image.pullPolicy
  "imagePullSecrets" .Values.image.pullSecrets
  "serviceAccount" "noderuntime-agent"
  "priorityClass" .Values.agent.priorityClassName
  "resources" .Values.agent.resources
  | toJson -}}
{{- end }}
