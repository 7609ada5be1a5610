{{/* Labels of all objects of the chart. */}}
{{- define "noderuntime.labels" -}}
app.kubernetes.io/name: noderuntime
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that select the operator's pod. */}}
{{- define "noderuntime.operatorLabels" -}}
app.kubernetes.io/name: noderuntime
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The image, by digest if one is set. */}}
{{- define "noderuntime.image" -}}
{{- $repository := required "image.repository is required: build an image with `make image IMAGE=<repository>:<tag>` and pass --set image.repository=<repository>,image.tag=<tag>" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The operator's settings for the agents' pods (JSON). */}}
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
