{{- /* SPDX-License-Identifier: GPL-3.0-or-later */ -}}
{{/* MongoDB and RabbitMQ: (list ctx options). */}}
{{- define "standin.store" -}}
{{- $ctx := index . 0 -}}{{- $o := index . 1 -}}
{{- include "standin.release" $ctx -}}
{{- $v := index $ctx.Values $o.kind -}}
{{- $d := index $ctx.Values._standinRelease.thirdParty $o.kind -}}
{{- $persistence := $v.persistence | default dict -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $v.fullnameOverride | default $o.kind }}
  labels:
    app.kubernetes.io/name: {{ $o.kind }}
    {{- with $v.labels }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- with $v.statefulsetLabels }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- include "standin.labels" $ctx | nindent 4 }}
spec:
  replicas: {{ $v.replicaCount | default 1 | int }}
  serviceName: {{ $o.headless }}
  selector: {matchLabels: {app.kubernetes.io/name: {{ $o.kind }}}}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {{ $o.kind }}
        {{- with $v.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
        {{- include "standin.labels" $ctx | nindent 8 }}
      {{- with $v.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "standin.pullSecrets" $ctx | nindent 6 }}
      {{- include "standin.podSecurity" $ctx | nindent 6 }}
      {{- include "standin.scheduling" $ctx | nindent 6 }}
      enableServiceLinks: false
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 10
      containers:
        - name: {{ $o.kind }}
          image: {{ include "standin.thirdParty" (list $ctx $o.kind $d.repository $d.tag $d.registry) }}
          command: [/usr/bin/python3, -ISB, /opt/standin/main.py, {{ $o.kind }}]
          env:
            - {name: STANDIN_SERVICE, value: {{ $o.kind }}}
            - {name: STANDIN_RELEASE, value: {{ $ctx.Chart.Version | quote }}}
            - {name: STORE_USER, value: {{ $o.user | quote }}}
            - name: STORE_PASSWORD
              {{ include "standin.from" (list $o.secret $o.key) }}
            {{- with $o.cookieSecret }}
            - name: RABBITMQ_ERLANG_COOKIE
              {{ include "standin.from" (list . "rabbitmq-erlang-cookie") }}
            {{- end }}
          ports:
            {{- range $o.ports }}
            - {name: {{ .name }}, containerPort: {{ .port }}}
            {{- end }}
          {{- if $v.customReadinessProbe }}
          readinessProbe: {{ toJson $v.customReadinessProbe }}
          {{- else }}
          readinessProbe: {tcpSocket: {port: {{ (index $o.ports 0).name }}}, periodSeconds: 5}
          {{- end }}
          {{- with $v.customLivenessProbe }}
          livenessProbe: {{ toJson . }}
          {{- end }}
          resources: {{ $v.resources | default dict | toJson }}
          volumeMounts:
            - {name: {{ $o.volume }}, mountPath: {{ $o.mount }}}
      {{- with $persistence.existingClaim }}
      volumes:
        - {name: {{ $o.volume }}, persistentVolumeClaim: {claimName: {{ . }}}}
      {{- end }}
  {{- if not $persistence.existingClaim }}
  volumeClaimTemplates:
    - metadata: {name: {{ $o.volume }}, labels: {app.kubernetes.io/name: {{ $o.kind }}}}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: {{ $persistence.size | default "8Gi" }}}}
  {{- end }}
{{- range $name := list $o.kind $o.headless }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    app.kubernetes.io/name: {{ $o.kind }}
    {{- include "standin.labels" $ctx | nindent 4 }}
spec:
  {{- if hasSuffix "-headless" $name }}
  clusterIP: None
  publishNotReadyAddresses: true
  {{- end }}
  selector: {app.kubernetes.io/name: {{ $o.kind }}}
  ports:
    {{- range $o.ports }}
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}}
    {{- end }}
{{- end }}
{{- end -}}
