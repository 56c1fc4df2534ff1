{{/* The pod's template, of the StatefulSet and of the Deployment. */}}
{{- define "celery-monitor.podTemplate" -}}
{{- $fullname := include "celery-monitor.fullname" . -}}
{{- $secretFiles := include "celery-monitor.secretFiles" . | fromYamlArray -}}
{{- $hasSecrets := or $secretFiles .Values.secrets.extra -}}
metadata:
  labels:
    {{- include "celery-monitor.podLabels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include "celery-monitor.config" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "celery-monitor.serviceAccountName" . }}
  automountServiceAccountToken: false
  # The environment is read for settings; addresses of Services have no place in it.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - name: celery-monitor
      image: {{ include "celery-monitor.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run]
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      env:
        {{- range include "celery-monitor.environment" . | fromYamlArray }}
        - {{ toYaml . | nindent 10 | trim }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http
          containerPort: {{ include "celery-monitor.port" . }}
          protocol: TCP
      {{- with .Values.startupProbe }}
      startupProbe:
        httpGet: {path: /livez, port: http}
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.livenessProbe }}
      livenessProbe:
        httpGet: {path: /livez, port: http}
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.readinessProbe }}
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/celery-monitor/config, readOnly: true}
        {{- if $hasSecrets }}
        - {name: secrets, mountPath: {{ include "celery-monitor.secretsDir" . }}, readOnly: true}
        {{- end }}
        - {name: data, mountPath: /var/lib/celery-monitor}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ $fullname }}
    {{- if $hasSecrets }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range $secretFiles }}
          - secret:
              name: {{ .source }}
              items:
                - {key: {{ .key | quote }}, path: {{ .file }}}
          {{- end }}
          {{- range .Values.secrets.extra }}
          - secret:
              name: {{ .existingSecret }}
              items:
                - {key: {{ .key | quote }}, path: {{ .file }}}
          {{- end }}
    {{- end }}
    {{- if or (gt (include "celery-monitor.replicas" . | int) 1) (not .Values.persistence.enabled) }}
    - name: data
      emptyDir: {}
    {{- else if .Values.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ .Values.persistence.existingClaim }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "celery-monitor.affinity" . }}
  affinity:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/*
The environment variables that the chart sets, as a YAML list, without those in `extraEnv`: a variable that stands twice
is refused by server-side apply.
*/}}
{{- define "celery-monitor.environment" -}}
{{- $variables := list (dict "name" "CELERY_MONITOR_CONFIG" "value" "/etc/celery-monitor/config/config.yaml") -}}
{{- range $name, $value := dict "HTTPS_PROXY" .Values.proxy.https "HTTP_PROXY" .Values.proxy.http "NO_PROXY" .Values.proxy.noProxy -}}
{{- if $value -}}
{{- $variables = append $variables (dict "name" $name "value" $value) -}}
{{- end -}}
{{- end -}}
{{- if and (((.Values.resources).limits).memory) (not ((.Values.config).tracking).max_memory) -}}
{{- /* The container's own limit, whatever it is: above 85 % of it tasks are forgotten before the pod is killed. */ -}}
{{- $limit := dict "containerName" "celery-monitor" "resource" "limits.memory" "divisor" "1Mi" -}}
{{- $variables = append $variables (dict "name" "MEMORY_LIMIT_MIB" "valueFrom" (dict "resourceFieldRef" $limit)) -}}
{{- $variables = append $variables (dict "name" "CELERY_MONITOR_TRACKING__MAX_MEMORY" "value" "$(MEMORY_LIMIT_MIB)MiB") -}}
{{- end -}}
{{- if gt (include "celery-monitor.replicas" . | int) 1 -}}
{{- $variables = append $variables (dict "name" "CELERY_MONITOR_STORE__REPLICAS" "value" (include "celery-monitor.replicas" .)) -}}
{{- end -}}
{{- $given := list -}}
{{- range .Values.extraEnv -}}{{- $given = append $given .name -}}{{- end -}}
{{- $set := list -}}
{{- range $variables -}}
{{- if not (has .name $given) -}}{{- $set = append $set . -}}{{- end -}}
{{- end -}}
{{- toYaml $set -}}
{{- end -}}

{{/* Replicas run on different nodes, and in different zones, where there are any; `affinity` replaces this. */}}
{{- define "celery-monitor.affinity" -}}
{{- if .Values.affinity -}}
{{- toYaml .Values.affinity -}}
{{- else if gt (include "celery-monitor.replicas" . | int) 1 -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    {{- range $key, $weight := dict "kubernetes.io/hostname" 100 "topology.kubernetes.io/zone" 50 }}
    - weight: {{ $weight }}
      podAffinityTerm:
        topologyKey: {{ $key }}
        labelSelector:
          matchLabels:
            {{- include "celery-monitor.monitorLabels" $ | nindent 12 }}
    {{- end }}
{{- end -}}
{{- end -}}
