{{/* SPDX-License-Identifier: GPL-3.0-or-later */}}
{{/* STAND-IN for the CircleCI Server chart, not the vendor's. */}}

{{/* What this release is: facts that are not values. Read once per rendering. */}}
{{- define "standin.release" -}}
{{- if not (hasKey .Values "_standinRelease") -}}
{{- $_ := set .Values "_standinRelease" (.Files.Get "standin/release.yaml" | fromYaml) -}}
{{- end -}}
{{- end -}}

{{/* (list ctx "a.b.c") → {"v": value or null} as JSON. */}}
{{- define "standin.at" -}}
{{- $here := dict "v" (index . 0).Values -}}
{{- range splitList "." (index . 1) -}}
{{- if and (kindIs "map" $here.v) (hasKey $here.v .) -}}
{{- $_ := set $here "v" (index $here.v .) -}}
{{- else -}}
{{- $_ := set $here "v" nil -}}
{{- end -}}
{{- end -}}
{{- dict "v" $here.v | toJson -}}
{{- end -}}

{{/* Is a switch on? Values accept true, "true", 1 and "1". */}}
{{- define "standin.on" -}}
{{- if has (toString .) (list "true" "1") -}}true{{- end -}}
{{- end -}}

{{/* (list ctx "name") → reference of one of CircleCI's own images: [registry/][org/]name:tag. */}}
{{- define "standin.image" -}}
{{- $ctx := index . 0 -}}{{- $name := index . 1 -}}
{{- include "standin.release" $ctx -}}
{{- $container := $ctx.Values.global.container | default dict -}}
{{- $parts := list -}}
{{- with $container.registry -}}{{- $parts = append $parts (trimSuffix "/" .) -}}{{- end -}}
{{- with $container.org -}}{{- $parts = append $parts (trimSuffix "/" .) -}}{{- end -}}
{{- $tag := index $ctx.Values._standinRelease.own $name -}}
{{- if not $tag -}}{{- fail (printf "the stand-in chart has no image %s in this release" $name) -}}{{- end -}}
{{- append $parts (printf "%s:%s" $name $tag) | join "/" -}}
{{- end -}}

{{/* (list ctx "values.prefix" "default repository" "default tag" "default registry") → reference of a third party's image. */}}
{{- define "standin.thirdParty" -}}
{{- $ctx := index . 0 -}}
{{- $image := (include "standin.at" (list $ctx (printf "%s.image" (index . 1))) | fromJson).v | default dict -}}
{{- $repository := $image.repository | default (index . 2) -}}
{{- $tag := $image.tag | default (index . 3) | toString -}}
{{- $registry := hasKey $image "registry" | ternary $image.registry (index . 4) -}}
{{- $name := printf "%s:%s" $repository $tag -}}
{{- if $registry -}}{{- printf "%s/%s" (trimSuffix "/" $registry) $name -}}{{- else -}}{{- $name -}}{{- end -}}
{{- end -}}

{{/* Pull secrets: a list of strings from 4.7, of maps before. Anything else is refused, as Kubernetes would refuse it. */}}
{{- define "standin.pullSecrets" -}}
{{- include "standin.release" . -}}
{{- $form := .Values._standinRelease.pullSecrets -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
{{- if eq $form "strings" }}
{{- if not (kindIs "string" .) }}{{ fail "global.imagePullSecrets must be a list of strings from 4.7 on, for example [\"regcred\"]" }}{{ end }}
  - name: {{ . }}
{{- else }}
{{- if not (kindIs "map" .) }}{{ fail "global.imagePullSecrets must be a list of maps up to 4.6, for example [{name: regcred}]" }}{{ end }}
  - name: {{ .name }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* (list ctx "secret" "key" "given value" length) → base64 of the value to keep: what the cluster has, what was given, or a new one. */}}
{{- define "standin.kept" -}}
{{- $ctx := index . 0 -}}{{- $name := index . 1 -}}{{- $key := index . 2 -}}
{{- if not (hasKey $ctx.Values "_standinMemo") -}}{{- $_ := set $ctx.Values "_standinMemo" dict -}}{{- end -}}
{{- $memo := $ctx.Values._standinMemo -}}{{- $id := printf "%s/%s" $name $key -}}
{{- if not (hasKey $memo $id) -}}
{{- $found := lookup "v1" "Secret" $ctx.Release.Namespace $name -}}
{{- if and $found $found.data (hasKey $found.data $key) -}}
{{- $_ := set $memo $id (index $found.data $key) -}}
{{- else -}}
{{- $_ := set $memo $id (index . 3 | default (randAlphaNum (int (index . 4))) | b64enc) -}}
{{- end -}}
{{- end -}}
{{- index $memo $id -}}
{{- end -}}

{{- define "standin.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* A Secret that the chart makes once and Helm never deletes. (list ctx name data) */}}
{{- define "standin.keptSecret" -}}
{{- $ctx := index . 0 -}}
{{- include "standin.release" $ctx -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "standin.labels" $ctx | nindent 4 }}
    helm.sh/chart: {{ $ctx.Values._standinRelease.chartLabel }}
  annotations:
    helm.sh/resource-policy: keep
type: Opaque
data:
  {{- index . 2 | toYaml | nindent 2 }}
{{- end -}}

{{/* (list name key) → env source */}}
{{- define "standin.from" -}}
valueFrom: {secretKeyRef: {name: {{ index . 0 }}, key: {{ index . 1 }}}}
{{- end -}}

{{- define "standin.scheduling" -}}
{{- with .Values.global.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.global.nodeAffinity }}
affinity: {nodeAffinity: {{ toJson . }}}
{{- end }}
{{- with .Values.global.tolerations }}
tolerations: {{ if kindIs "slice" . }}{{ toJson . }}{{ else }}{{ list . | toJson }}{{ end }}
{{- end }}
{{- end -}}

{{- define "standin.podSecurity" -}}
securityContext: {runAsUser: 1001, runAsGroup: 1001, fsGroup: 1001, runAsNonRoot: true}
{{- end -}}

{{- define "standin.proxyEnv" -}}
{{- if include "standin.on" .Values.proxy.enabled }}
{{- $none := .Values.proxy.no_proxy | default list | join "," }}
{{- range $scheme := list "http" "https" }}
{{- $side := index $.Values.proxy $scheme }}
{{- $login := "" }}
{{- if include "standin.on" ($side.auth | default dict).enabled }}{{ $login = printf "%s:%s@" $side.auth.username $side.auth.password }}{{ end }}
- name: {{ upper $scheme }}_PROXY
  value: {{ printf "http://%s%s:%v" $login $side.host $side.port | quote }}
{{- end }}
- name: NO_PROXY
  value: {{ $none | quote }}
{{- end }}
{{- end -}}

{{/* How to reach PostgreSQL; (list ctx "PG" user secret key). */}}
{{- define "standin.postgresEnv" -}}
{{- $ctx := index . 0 -}}{{- $p := index . 1 -}}{{- $pg := $ctx.Values.postgresql -}}
- {name: {{ $p }}HOST, value: {{ $pg.postgresqlHost | default "postgresql" | quote }}}
- {name: {{ $p }}PORT, value: {{ $pg.postgresqlPort | default 5432 | toString | quote }}}
- {name: {{ $p }}USER, value: {{ index . 2 | quote }}}
- name: {{ $p }}PASSWORD
  {{ include "standin.from" (list (index . 3) (index . 4)) }}
{{- if or (include "standin.on" $pg.secureMode) (include "standin.on" ($pg.tls | default dict).enabled) }}
- {name: {{ $p }}SSLMODE, value: require}
{{- end }}
{{- end -}}

{{- define "standin.adminEnv" -}}
{{- $auth := .Values.postgresql.auth -}}
{{- $internal := eq (include "standin.on" .Values.postgresql.internal) "true" -}}
{{- $user := $internal | ternary "postgres" ($auth.username | default "postgres") -}}
{{- $key := $internal | ternary "postgres-password" "password" -}}
{{- include "standin.postgresEnv" (list . "PGADMIN" $user ($auth.existingSecret | default "postgresql") $key) }}
{{- end -}}

{{/* (list ctx workload): what a service asks for becomes environment. */}}
{{- define "standin.env" -}}
{{- $ctx := index . 0 -}}{{- $w := index . 1 -}}{{- $v := $ctx.Values -}}{{- $needs := $w.needs | default list -}}
- {name: STANDIN_SERVICE, value: {{ $w.name }}}
- {name: STANDIN_RELEASE, value: {{ $ctx.Chart.Version | quote }}}
- {name: STANDIN_NEEDS, value: {{ join "," $needs | quote }}}
- {name: K8S_POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
{{- if $w.ports }}
{{- $ports := list }}{{ range $w.ports }}{{ $ports = append $ports (toString .port) }}{{ end }}
- {name: STANDIN_PORTS, value: {{ join "," $ports | quote }}}
{{- end }}
{{- if $w.repl }}
- {name: STANDIN_REPL, value: "true"}
{{- end }}
{{- range $need := $needs }}
{{- if eq $need "domain" }}
- {name: CIRCLE_DOMAIN, value: {{ $v.global.domainName | default "" | quote }}}
- {name: CIRCLE_SCHEME, value: {{ $v.global.scheme | default "https" | quote }}}
{{- else if eq $need "license" }}
- name: CIRCLE_LICENSE
  {{ include "standin.from" (list "license" "license") }}
{{- else if eq $need "api_token" }}
- name: CIRCLE_API_TOKEN
  {{ include "standin.from" (list "api-token" "api-token") }}
{{- else if eq $need "session_cookie" }}
- {name: CIRCLE_SECRETS__SESSION_COOKIE_KEY, value: {{ include "standin.kept" (list $ctx "session-cookie" "session-cookie-key" $v.sessionCookieKey 16) | b64dec | quote }}}
{{- else if eq $need "pusher" }}
- {name: PUSHER__KEY, value: {{ $v.pusher.key | default "circle" | quote }}}
- {name: PUSHER__SECRET, value: {{ include "standin.kept" (list $ctx "pusher" "secret" $v.pusher.secret 48) | b64dec | quote }}}
{{- else if eq $need "keyset" }}
{{- range $side := list (list "SIGN" "signing" "signing-key") (list "CRYPT" "encryption" "encryption-key") }}
- name: CIRCLE_SECRETS__KEYSET__{{ index $side 0 }}
{{- with index $v.keyset (index $side 1) }}
  value: {{ . | quote }}
{{- else }}
  {{ include "standin.from" (list "signing-keys" (index $side 2)) }}
{{- end }}
{{- end }}
{{- else if eq $need "github" }}
- name: GITHUB__CLIENT_ID
  {{ include "standin.from" (list "github-secret" "clientId") }}
- name: GITHUB__CLIENT_SECRET
  {{ include "standin.from" (list "github-secret" "clientSecret") }}
{{- if include "standin.on" $v.github.enterprise }}
- name: GITHUB__DEFAULT_TOKEN
  {{ include "standin.from" (list "github-secret" "defaultToken") }}
{{- end }}
{{- include "standin.githubEnv" $ctx }}
{{- else if eq $need "encryption" }}
{{- if include "standin.on" $v.tink.enabled }}
- {name: TINK_ENABLED, value: "true"}
- name: TINK_KEYSET
  {{ include "standin.from" (list "tink" "keyset") }}
{{- else }}
- {name: VAULT_ADDR, value: {{ $v.vault.url | default "http://vault:8200" | quote }}}
{{- if not (include "standin.on" $v.vault.internal) }}
- name: VAULT_TOKEN
  {{ include "standin.from" (list "vault" "token") }}
{{- end }}
{{- end }}
{{- else if eq $need "json_web_keys" }}
- name: JSON_WEB_KEYS
  {{ include "standin.from" (list ($v.oidc_service.json_web_keys_secret_name | default "oidc-service") "json-web-keys") }}
{{- else if eq $need "mongodb" }}
- {name: MONGO_HOST, value: {{ $v.mongodb.hosts | default "mongodb:27017" | quote }}}
- {name: MONGO_USER, value: {{ $v.mongodb.auth.username | default "root" | quote }}}
- name: MONGO_PASSWORD
  {{ include "standin.from" (list ($v.mongodb.auth.existingSecret | default "mongodb") "mongodb-root-password") }}
{{- else if eq $need "rabbitmq" }}
- {name: RABBITMQ_HOST, value: {{ $v.rabbitmq.host | default "rabbitmq" | quote }}}
- {name: RABBITMQ_PORT, value: {{ $v.rabbitmq.port | default 5672 | toString | quote }}}
- {name: RABBITMQ_USER, value: {{ $v.rabbitmq.auth.username | default "circle" | quote }}}
- name: RABBITMQ_PASSWORD
  {{ include "standin.from" (list ($v.rabbitmq.auth.existingPasswordSecret | default "rabbitmq") "rabbitmq-password") }}
{{- else if eq $need "redis" }}
- {name: REDIS_HOST, value: redis-master}
{{- else if eq $need "nomad" }}
{{- $server := $v.nomad.server }}
{{- $internal := not (eq (toString $server.internal) "false") }}
- {name: NOMAD_ADDR, value: {{ if $internal }}"http://nomad-server:4646"{{ else }}{{ printf "%s://%s:%v" ($server.scheme | default "https") $server.serverHostname ($server.port | default 4646) | quote }}{{ end }}}
{{- with $v.nomad.buildAgentImage }}
- {name: BUILD_AGENT_IMAGE, value: {{ printf "%s:%s" . (index ($ctx.Files.Get "images.yaml" | fromYaml) "circleci/picard") | quote }}}
{{- end }}
{{- with ($v.docker_provisioner | default dict).reaperContainerRepository }}
- {name: REAPER_CONTAINER_IMAGE, value: {{ printf "%s/pause:3.6" (trimSuffix "/" .) | quote }}}
{{- end }}
{{- else if eq $need "agents" }}
- {name: AGENT_BASE_URL, value: {{ (include "standin.at" (list $ctx $w.agents) | fromJson).v | default "" | quote }}}
{{- else if eq $need "cloud" }}
{{- $key := hasKey $v "machine_provisioner" | ternary "machine_provisioner" "vm_service" }}
{{- $on := list }}
{{- range $name, $provider := ((index $v $key).providers | default dict) }}{{ if include "standin.on" $provider.enabled }}{{ $on = append $on (printf "provider %s" $name) }}{{ end }}{{ end }}
- {name: CLOUD_PROVIDERS, value: {{ join ", " $on | quote }}}
{{- else if eq $need "object_storage" }}
{{- $store := $v.object_storage }}
- {name: OBJECT_STORAGE__BUCKET, value: {{ $store.bucketName | default "" | quote }}}
{{- if include "standin.on" $store.s3.enabled }}
- {name: S3__ENABLED, value: "true"}
- {name: S3__ENDPOINT, value: {{ $store.s3.endpoint | default "" | quote }}}
- {name: S3__REGION, value: {{ $store.s3.region | default "us-east-1" | quote }}}
{{- if $store.s3.irsaRole }}
- {name: S3__IRSA_ROLE, value: {{ $store.s3.irsaRole | quote }}}
{{- else }}
- name: S3__ACCESS_KEY
  {{ include "standin.from" (list "object-storage-secret" "s3AccessKey") }}
- name: S3__SECRET_ACCESS_KEY
  {{ include "standin.from" (list "object-storage-secret" "s3SecretKey") }}
{{- end }}
{{- else if include "standin.on" $store.gcs.enabled }}
- {name: GCS__ENABLED, value: "true"}
{{- end }}
{{- end }}
{{- end }}
{{- include "standin.proxyEnv" $ctx }}
{{- end -}}

{{- define "standin.githubEnv" -}}
{{- $github := .Values.github }}
{{- if include "standin.on" $github.enterprise }}
- {name: GITHUB__ENTERPRISE, value: "true"}
- {name: GITHUB__HOSTNAME, value: {{ $github.hostname | default "" | quote }}}
- {name: GITHUB__SCHEME, value: {{ $github.scheme | default "https" | quote }}}
{{- with $github.fingerprint }}
- {name: GITHUB__FINGERPRINT, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* (list ctx database-name): environment of a database's user and, for its migrator, of the administrator. */}}
{{- define "standin.databaseEnv" -}}
{{- $ctx := index . 0 -}}{{- include "standin.release" $ctx -}}
{{- $d := index $ctx.Values._standinRelease.databases (index . 1) -}}
- {name: PGDATABASE, value: {{ $d.database }}}
{{- if $d.role }}
{{ include "standin.postgresEnv" (list $ctx "PG" $d.role (index . 1) "postgres-app-password") }}
{{- else }}
{{ include "standin.adminEnv" $ctx | replace "PGADMIN" "PG" }}
{{- end }}
{{- end -}}

{{/* (list ctx workload database-name): the container that migrates. */}}
{{- define "standin.migrator" -}}
{{- $ctx := index . 0 -}}{{- $w := index . 1 -}}{{- $name := index . 2 -}}
{{- include "standin.release" $ctx -}}
{{- $d := index $ctx.Values._standinRelease.databases $name -}}
- name: {{ $d.container }}
  image: {{ include "standin.image" (list $ctx $d.image) }}
  command: [/usr/bin/python3, -ISB, /opt/standin/main.py, migrate]
  env:
    - {name: STANDIN_SERVICE, value: {{ $d.container }}}
    - {name: STANDIN_RELEASE, value: {{ $ctx.Chart.Version | quote }}}
    - {name: STANDIN_DATABASE, value: {{ $d.database }}}
    - {name: STANDIN_DATABASE_ROLE, value: {{ $d.role | quote }}}
    {{- if not $d.sets_password }}
    - {name: STANDIN_KEEP_PASSWORD, value: "true"}
    {{- end }}
    {{- include "standin.databaseEnv" (list $ctx $name) | nindent 4 }}
    {{- include "standin.adminEnv" $ctx | nindent 4 }}
  resources: {{ include "standin.initResources" (list $ctx $w) }}
{{- end -}}

{{/* Containers that run first ask for no more than the service itself; tiny when it names nothing. */}}
{{- define "standin.initResources" -}}
{{- (include "standin.at" (list (index . 0) (printf "%s.resources" (index . 1).values)) | fromJson).v | default dict | toJson -}}
{{- end -}}

{{/* (list ctx workload kind): containers before the service that are no migrators. */}}
{{- define "standin.first" -}}
{{- $ctx := index . 0 -}}{{- $w := index . 1 -}}{{- $kind := index . 2 -}}
{{- $image := "" -}}{{- $role := "" -}}
{{- if eq $kind "license" -}}{{- $image = "server-license" -}}{{- $role = "license" -}}
{{- else if eq $kind "known_hosts" -}}{{- $image = "init-known-hosts" -}}{{- $role = "known-hosts" -}}
{{- else if eq $kind "api_gateway" -}}{{- $image = "api-gateway" -}}{{- $role = "api-gateway" -}}
{{- else -}}{{- $image = "workflows-conductor-migrator" -}}{{- $role = "table-rename" -}}{{- end -}}
- name: {{ eq $kind "table_rename" | ternary "flyway-table-rename" $image }}
  image: {{ include "standin.image" (list $ctx $image) }}
  command: [/usr/bin/python3, -ISB, /opt/standin/main.py, {{ $role }}]
  env:
    - {name: STANDIN_SERVICE, value: {{ $image }}}
    - {name: STANDIN_RELEASE, value: {{ $ctx.Chart.Version | quote }}}
    {{- if eq $kind "license" }}
    - name: CIRCLE_LICENSE
      {{ include "standin.from" (list "license" "license") }}
    {{- end }}
    {{- if eq $kind "known_hosts" }}
    {{- include "standin.githubEnv" $ctx | nindent 4 }}
    {{- end }}
  resources: {{ include "standin.initResources" (list $ctx $w) }}
{{- end -}}

{{- define "standin.enabled" -}}
{{- $w := index . 1 -}}
{{- if $w.enabled -}}{{- include "standin.on" (include "standin.at" (list (index . 0) $w.enabled) | fromJson).v -}}{{- else -}}true{{- end -}}
{{- end -}}

{{/* (list ctx "name"): Deployment and Service of an ordinary service. */}}
{{- define "standin.workload" -}}
{{- $ctx := index . 0 -}}
{{- include "standin.release" $ctx -}}
{{- $w := $ctx.Files.Get (printf "standin/workloads/%s.yaml" (index . 1)) | fromYaml -}}
{{- if include "standin.enabled" (list $ctx $w) }}
{{- $replicas := (include "standin.at" (list $ctx (printf "%s.replicas" $w.values)) | fromJson).v }}
{{- $layer := $w.layer | default "application" }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $w.name }}
  labels: &labels
    app: {{ $w.name }}
    layer: {{ $layer }}
    {{- include "standin.labels" $ctx | nindent 4 }}
spec:
  replicas: {{ kindIs "invalid" $replicas | ternary 1 $replicas | int }}
  selector: {matchLabels: {app: {{ $w.name }}}}
  template:
    metadata:
      labels: *labels
      {{- if eq $w.name "soketi" }}
      annotations: {prometheus.io/scrape: "true", prometheus.io/path: /metrics, prometheus.io/port: "9601"}
      {{- end }}
    spec:
      {{- include "standin.pullSecrets" $ctx | nindent 6 }}
      {{- include "standin.podSecurity" $ctx | nindent 6 }}
      {{- include "standin.scheduling" $ctx | nindent 6 }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: 10
      {{- if $w.account }}
      serviceAccountName: {{ $w.account }}
      {{- else if has "object_storage" ($w.needs | default list) }}
      serviceAccountName: object-storage
      {{- else }}
      automountServiceAccountToken: false
      {{- end }}
      {{- if or $w.init $w.migrates }}
      initContainers:
        {{- range $w.init }}
        {{- include "standin.first" (list $ctx $w .) | nindent 8 }}
        {{- end }}
        {{- range $w.migrates }}
        {{- include "standin.migrator" (list $ctx $w .) | nindent 8 }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ $w.container }}
          {{- if $w.third_party }}
          {{- $t := index $ctx.Values._standinRelease.thirdParty $w.third_party }}
          image: {{ include "standin.thirdParty" (list $ctx $w.third_party $t.repository $t.tag "") }}
          {{- else }}
          image: {{ include "standin.image" (list $ctx $w.image) }}
          {{- end }}
          command: [/usr/bin/python3, -ISB, /opt/standin/main.py, {{ $w.role | default "service" }}]
          env:
            {{- include "standin.env" (list $ctx $w) | nindent 12 }}
            {{- if eq ($w.role | default "") "frontend" }}
            - {name: STANDIN_PEERS, value: {{ include "standin.peers" $ctx | quote }}}
            {{- with $ctx.Values.frontend.jvmHeapSize }}
            - {name: JVM_HEAP_SIZE, value: {{ . | quote }}}
            {{- end }}
            {{- end }}
            {{- with $w.database }}
            {{- include "standin.databaseEnv" (list $ctx .) | nindent 12 }}
            {{- end }}
          ports:
            - {name: http, containerPort: 8080}
            {{- if eq $w.name "kong" }}
            - {name: https, containerPort: 8443}
            - {name: status, containerPort: 8001}
            {{- end }}
            {{- range $w.ports }}
            - {name: {{ .name }}, containerPort: {{ .port }}}
            {{- end }}
            {{- if $w.repl }}
            - {name: nrepl, containerPort: 6005}
            {{- end }}
          readinessProbe: {httpGet: {path: /health, port: http}, periodSeconds: 5, timeoutSeconds: 3}
          resources: {{ (include "standin.at" (list $ctx (printf "%s.resources" $w.values)) | fromJson).v | default dict | toJson }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $w.name }}
  labels:
    app: {{ $w.name }}
    layer: {{ $layer }}
    {{- include "standin.labels" $ctx | nindent 4 }}
spec:
  selector: {app: {{ $w.name }}}
  ports:
    - {name: http, port: 80, targetPort: http}
    {{- if eq $w.name "kong" }}
    - {name: https, port: 443, targetPort: https}
    - {name: status, port: 8001, targetPort: status}
    {{- end }}
    {{- range $w.ports }}
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}}
    {{- end }}
{{- end }}
{{- end -}}

{{/* All services with a page of their own, for the frontend's table. */}}
{{- define "standin.peers" -}}
{{- $ctx := . -}}{{- $names := list -}}
{{- range $path, $_ := .Files.Glob "standin/workloads/*.yaml" -}}
{{- $w := $ctx.Files.Get $path | fromYaml -}}
{{- if include "standin.enabled" (list $ctx $w) -}}{{- $names = append $names $w.name -}}{{- end -}}
{{- end -}}
{{- $names | sortAlpha | join "," -}}
{{- end -}}
