{{- define "celery-monitor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* StatefulSets add "-0" and a revision hash of eleven characters to their name: 52 leave room within a label's 63. */}}
{{- define "celery-monitor.fullname" -}}
{{- $name := include "celery-monitor.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "celery-monitor.selectorLabels" -}}
app.kubernetes.io/name: {{ include "celery-monitor.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/*
The labels of an object, each once: `list $ labels ...`. Later ones override earlier ones, and `commonLabels` the chart's
own, but nothing overrides those that select.
*/}}
{{- define "celery-monitor.labels" -}}
{{- $root := first . -}}
{{- $labels := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/part-of" "celery-monitor" -}}
{{- range prepend (rest .) $root.Values.commonLabels -}}
{{- $labels = mergeOverwrite $labels (default dict .) -}}
{{- end -}}
{{- mergeOverwrite $labels (include "celery-monitor.selectorLabels" $root | fromYaml) | toYaml -}}
{{- end -}}

{{/*
The labels of the daemon's pods, without those of chart and version: only what changes the pod itself may restart it.
*/}}
{{- define "celery-monitor.podLabels" -}}
{{- $labels := mergeOverwrite dict (default dict .Values.commonLabels) (default dict .Values.podLabels) -}}
{{- mergeOverwrite $labels (include "celery-monitor.monitorLabels" . | fromYaml) | toYaml -}}
{{- end -}}

{{/* The labels that select the daemon's pods. */}}
{{- define "celery-monitor.monitorLabels" -}}
{{ include "celery-monitor.selectorLabels" . }}
app.kubernetes.io/component: monitor
{{- end -}}

{{- define "celery-monitor.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "celery-monitor.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "celery-monitor.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* `helm upgrade --reuse-values` from a version without the value leaves it unset. */}}
{{- define "celery-monitor.replicas" -}}
{{- default 1 .Values.replicas | int -}}
{{- end -}}

{{- define "celery-monitor.port" -}}
{{- dig "web" "port" 9808 (default dict .Values.config) | int -}}
{{- end -}}
