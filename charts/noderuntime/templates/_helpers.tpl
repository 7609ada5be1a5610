{{/* Labels of all objects of the chart. */}}
{{- define "noderuntime.labels" -}}
app.kubernetes.io/name: noderuntime
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that select the pods of a component of this release: (list $ component). */}}
{{- define "noderuntime.componentLabels" -}}
app.kubernetes.io/name: noderuntime
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{/* Labels that select the operator's pods. */}}
{{- define "noderuntime.operatorLabels" -}}
{{- include "noderuntime.componentLabels" (list . "operator") }}
{{- end }}

{{/* Labels that select the agents' pods, which the operator creates. */}}
{{- define "noderuntime.agentLabels" -}}
app.kubernetes.io/name: noderuntime
app.kubernetes.io/component: agent
app.kubernetes.io/managed-by: noderuntime-operator
{{- end }}

{{/* What the operator's pod and the pods of hooks have in common. */}}
{{- define "noderuntime.podDefaults" -}}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.operator.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The account of a hook, which can list NodeRuntimes: a dict of root, component and hook (annotations). */}}
{{- define "noderuntime.hookAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: noderuntime-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "noderuntime.labels" .root | nindent 4 }}
  annotations:
    {{- toYaml .hook | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  labels:
    {{- include "noderuntime.labels" .root | nindent 4 }}
  annotations:
    {{- toYaml .hook | nindent 4 }}
rules:
  - apiGroups: [noderuntime.dev]
    resources: [noderuntimes]
    verbs: [list]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  labels:
    {{- include "noderuntime.labels" .root | nindent 4 }}
  annotations:
    {{- toYaml .hook | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ .root.Release.Name }}-{{ .component }}
subjects:
  - kind: ServiceAccount
    name: noderuntime-{{ .component }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* A container of a hook: our own image, confined like the operator. */}}
{{- define "noderuntime.hookContainer" -}}
image: {{ include "noderuntime.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [noderuntime-operator]
env:
  - name: NODERUNTIME_AGENT
    value: {{ include "noderuntime.agentSettings" . | quote }}
resources:
  requests: {cpu: 10m, memory: 64Mi}
  limits: {memory: 256Mi}
securityContext:
  {{- include "noderuntime.confined" . | nindent 2 }}
{{- end }}

{{/* The security context of every container but the agents'. */}}
{{- define "noderuntime.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
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
