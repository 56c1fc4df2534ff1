{{- define "celery-monitor.secretsDir" -}}/etc/celery-monitor/secrets{{- end -}}

{{/*
The secrets that the values name, as a YAML list of {section, channel, field, file, source, key}: `field` of the
configuration's `section`, or of the entry `channel` of its channels, is read from `file`, which is `key` of the Secret
`source`.
*/}}
{{- define "celery-monitor.secretFiles" -}}
{{- $places := dict
  "brokerUrl" (list "broker" "url" "broker-url")
  "storeUrl" (list "store" "url" "store-url")
  "storePassword" (list "store" "password" "store-password")
  "pagerdutyRoutingKey" (list "pagerduty" "routing_key" "pagerduty-routing-key")
  "emailPassword" (list "email" "password" "email-password")
  "webPassword" (list "web" "password" "web-password")
  "oidcClientSecret" (list "web.oidc" "client_secret" "oidc-client-secret")
  "sessionKey" (list "web" "session_key" "session-key") -}}
{{- $files := list -}}
{{- range $name, $place := $places -}}
{{- $secret := index $.Values.secrets $name -}}
{{- if and $secret.value $secret.existingSecret -}}
{{- fail (printf "secrets.%s: give value or existingSecret, not both" $name) -}}
{{- end -}}
{{- if or $secret.value $secret.existingSecret -}}
{{- $own := include "celery-monitor.fullname" $ -}}
{{- $files = append $files (dict
  "section" (index $place 0) "field" (index $place 1) "file" (index $place 2)
  "source" (default $own $secret.existingSecret)
  "key" (ternary $secret.key (index $place 2) (ne $secret.existingSecret ""))) -}}
{{- end -}}
{{- end -}}
{{- range $name, $secret := $.Values.secrets.channels -}}
{{- $secret = merge dict $secret (dict "value" "" "existingSecret" "" "key" ($secret.field | replace "_" "-")) -}}
{{- if and $secret.value $secret.existingSecret -}}
{{- fail (printf "secrets.channels.%s: give value or existingSecret, not both" $name) -}}
{{- end -}}
{{- if or $secret.value $secret.existingSecret -}}
{{- $file := printf "channel-%s-%s" $name ($secret.field | replace "_" "-") -}}
{{- $files = append $files (dict
  "channel" $name "field" $secret.field "file" $file
  "source" (default (include "celery-monitor.fullname" $) $secret.existingSecret)
  "key" (ternary $secret.key $file (ne $secret.existingSecret ""))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* What a ConfigMap must not hold, and what cannot work, is refused here with the name of the right value. */}}
{{- define "celery-monitor.validateConfig" -}}
{{- $config := default dict .Values.config -}}
{{- $clear := "config.%s would stand in a ConfigMap in clear text: use %s instead" -}}
{{- if regexMatch "://[^/@;]*:[^;]+@" (dig "broker" "url" "" $config | toString) -}}
{{- fail (printf $clear "broker.url with its password" "secrets.brokerUrl") -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:.+@" (dig "store" "url" "" $config | toString) -}}
{{- fail (printf $clear "store.url with its password" "secrets.storeUrl or secrets.storePassword") -}}
{{- end -}}
{{- if dig "pagerduty" "routing_key" "" $config -}}
{{- fail (printf $clear "pagerduty.routing_key" "secrets.pagerdutyRoutingKey") -}}
{{- end -}}
{{- if dig "email" "password" "" $config -}}
{{- fail (printf $clear "email.password" "secrets.emailPassword") -}}
{{- end -}}
{{- if dig "web" "password" "" $config -}}
{{- fail (printf $clear "web.password" "secrets.webPassword") -}}
{{- end -}}
{{- if dig "web" "oidc" "client_secret" "" $config -}}
{{- fail (printf $clear "web.oidc.client_secret" "secrets.oidcClientSecret") -}}
{{- end -}}
{{- if dig "web" "session_key" "" $config -}}
{{- fail (printf $clear "web.session_key" "secrets.sessionKey") -}}
{{- end -}}
{{- range dig "alerts" "rules" list $config -}}
{{- if .routing_key -}}
{{- fail (printf $clear (printf "alerts.rules[%s].routing_key" .name) "secrets.extra and routing_key_file") -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- $channelSecrets := .Files.Get "files/channels/secrets.json" | fromJson -}}
{{- range $channel := dig "channels" list $config -}}
{{- $names = append $names $channel.name -}}
{{- range default list (get $channelSecrets (toString $channel.type)) -}}
{{- if get $channel . -}}
{{- fail (printf $clear (printf "channels[%s].%s" $channel.name .) (printf "secrets.channels.%s with field: %s" $channel.name .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.secrets.channels -}}
{{- if not (has $name $names) -}}
{{- fail (printf "secrets.channels.%s: config.channels has no channel of this name" $name) -}}
{{- end -}}
{{- end -}}
{{- $secrets := .Values.secrets -}}
{{- $broker := or $secrets.brokerUrl.value $secrets.brokerUrl.existingSecret
  (dig "broker" "url" "" $config) (dig "broker" "url_file" "" $config) -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "CELERY_MONITOR_BROKER__URL" .name -}}{{- $broker = .name -}}{{- end -}}
{{- end -}}
{{- if not $broker -}}
{{- fail "secrets.brokerUrl is missing: set secrets.brokerUrl.value, or secrets.brokerUrl.existingSecret and .key" -}}
{{- end -}}
{{- if gt (include "celery-monitor.replicas" . | int) 1 -}}
{{- if eq (include "celery-monitor.store" .) "sqlite" -}}
{{- fail (printf "replicas: %d needs a store in PostgreSQL, which all replicas share; a SQLite store has one writer. Set secrets.storeUrl, or config.store.url and secrets.storePassword, or replicas: 1" (include "celery-monitor.replicas" . | int)) -}}
{{- end -}}
{{- if .Values.persistence.existingClaim -}}
{{- fail (printf "persistence.existingClaim is of no use with replicas: %d, which keep everything in PostgreSQL: remove it" (include "celery-monitor.replicas" . | int)) -}}
{{- end -}}
{{- end -}}
{{- $password := or $secrets.webPassword.value $secrets.webPassword.existingSecret (dig "web" "password_file" "" $config) -}}
{{- if and $password (not (dig "web" "username" "" $config)) -}}
{{- fail "secrets.webPassword needs config.web.username" -}}
{{- end -}}
{{- $signIn := or $password (dig "web" "oidc" "issuer" "" $config) (dig "web" "auth_proxy" "addresses" list $config) -}}
{{- if and .Values.ingress.enabled (not $signIn) (not .Values.ingress.allowUnauthenticated) -}}
{{- fail "ingress.enabled publishes the page: set config.web.username and secrets.webPassword, or config.web.oidc, or config.web.auth_proxy, or ingress.allowUnauthenticated=true" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts is empty: name at least one host" -}}
{{- end -}}
{{- end -}}

{{/*
The kind of the store: `postgresql` or `sqlite`. A URL in a Secret of your own, in a file or in the environment cannot be
read here and is taken as PostgreSQL's: there is no reason to hide the path of a file.
*/}}
{{- define "celery-monitor.store" -}}
{{- $secret := .Values.secrets.storeUrl -}}
{{- $url := default "" (or $secret.value (dig "store" "url" "" (default dict .Values.config))) | toString -}}
{{- $elsewhere := or $secret.existingSecret (dig "store" "url_file" "" (default dict .Values.config)) -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "CELERY_MONITOR_STORE__URL" -}}{{- $url = default "" .value -}}{{- $elsewhere = not .value -}}{{- end -}}
{{- if eq .name "CELERY_MONITOR_STORE__URL_FILE" -}}{{- $elsewhere = true -}}{{- end -}}
{{- end -}}
{{- ternary "postgresql" "sqlite" (or (not (empty $elsewhere)) (regexMatch "^postgres(ql)?:" $url)) -}}
{{- end -}}

{{/* The ports that PostgreSQL may be reached on: those of the values, else that of its URL, else the usual one. */}}
{{- define "celery-monitor.storePorts" -}}
{{- $ports := .Values.networkPolicy.egress.store.ports -}}
{{- if and (not $ports) (eq (include "celery-monitor.store" .) "postgresql") -}}
{{- $url := default "" (or .Values.secrets.storeUrl.value (dig "store" "url" "" (default dict .Values.config))) | toString -}}
{{- $hosts := regexFind "://[^/?]*" $url | splitList "@" | last -}}
{{- range regexFindAll ":[0-9]+(,|$)" $hosts -1 -}}
{{- $ports = append $ports (trimAll ":," . | int) -}}
{{- end -}}
{{- $ports = default (list 5432) (uniq $ports) -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end -}}

{{/* The daemon's configuration file: `config` over the chart's own places for store and secrets. */}}
{{- define "celery-monitor.config" -}}
{{- include "celery-monitor.validateConfig" . -}}
{{- $own := dict "store" (dict "url" "sqlite:////var/lib/celery-monitor/celery-monitor.db") -}}
{{- if dig "store" "url_file" "" (default dict .Values.config) -}}{{- $own = dict -}}{{- end -}}
{{- range include "celery-monitor.secretFiles" . | fromYamlArray -}}
{{- if eq .file "store-url" -}}{{- $_ := unset $own "store" -}}{{- end -}}
{{- if .section -}}
{{- $path := printf "%s/%s" (include "celery-monitor.secretsDir" $) .file -}}
{{- $tree := dict (printf "%s_file" .field) $path -}}
{{- range splitList "." .section | reverse -}}{{- $tree = dict . $tree -}}{{- end -}}
{{- $_ := mergeOverwrite $own $tree -}}
{{- end -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
{{- $host := first .Values.ingress.hosts -}}
{{- $path := dig "path" "/" (first (default (list (dict "path" "/")) $host.paths)) | trimSuffix "/" -}}
{{- if not (regexMatch "^[A-Za-z0-9/._~-]*$" $path) -}}{{- $path = "" -}}{{- end -}}
{{- $url := printf "%s://%s%s" (ternary "https" "http" (not (empty .Values.ingress.tls))) $host.host $path -}}
{{- $_ := mergeOverwrite $own (dict "web" (dict "external_url" $url)) -}}
{{- end -}}
{{- /* The pod's own name has no dot, which strict mail servers refuse: a name that DNS knows. */ -}}
{{- $domain := dig "email" "from" "" (default dict .Values.config) | default "" | regexFind "@[^@>]+" | trimPrefix "@" | trim -}}
{{- if .Values.ingress.enabled -}}{{- $domain = (first .Values.ingress.hosts).host -}}{{- end -}}
{{- if and (dig "email" "from" "" (default dict .Values.config)) $domain (not (contains "*" $domain)) (not (hasPrefix "[" $domain)) -}}
{{- $_ := mergeOverwrite $own (dict "email" (dict "hello" $domain)) -}}
{{- end -}}
{{- $merged := mergeOverwrite $own (deepCopy (default dict .Values.config)) -}}
{{- range include "celery-monitor.secretFiles" . | fromYamlArray -}}
{{- $secret := . -}}
{{- range dig "channels" list $merged -}}
{{- if eq .name (default "" $secret.channel) -}}
{{- $_ := set . (printf "%s_file" $secret.field) (printf "%s/%s" (include "celery-monitor.secretsDir" $) $secret.file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $merged -}}
{{- end -}}
