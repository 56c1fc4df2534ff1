{{/*
The series of the fleet lose the labels of the pod that serves them, so that each is one series through a take-over, a
rolling update and a restart. What describes a process, or counts since its start, keeps them.

Without groups in `regex`, `replacement` is empty also for versions of the operator that leave an empty one out.
*/}}
{{- define "celery-monitor.stableSeries" -}}
{{- $prefix := dig "metrics" "prefix" "celery_" (default dict .Values.config) -}}
- {sourceLabels: [__name__], regex: {{ $prefix }}.+, targetLabel: __tmp_fleet, replacement: "1"}
# The metrics of a process; all others are the fleet's.
- sourceLabels: [__name__]
  regex: {{ $prefix }}monitor_(?:build_info|commit_failures_total|commit_seconds_.+|leader|notifications_total|redaction_timeouts_total|replies_discarded_total|sign_ins_refused_total|store_given_up_total|thread_failures_total)
  targetLabel: __tmp_fleet
  replacement: ""
{{- range $label := list "instance" "pod" "node" }}
- {sourceLabels: [__tmp_fleet], regex: "1", targetLabel: {{ $label }}, replacement: ""}
{{- end }}
- {action: labeldrop, regex: __tmp_fleet}
{{- end -}}
