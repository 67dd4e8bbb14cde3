{{- define "larder.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "larder.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "larder.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "larder.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "larder.selector" -}}
app.kubernetes.io/name: {{ include "larder.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "larder.labels" -}}
{{ include "larder.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "larder.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "larder.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "larder.tokenSecret" -}}
{{- if .Values.adminToken.existingSecret }}
{{- .Values.adminToken.existingSecret }}
{{- else if .Values.adminToken.value }}
{{- include "larder.fullname" . }}
{{- end }}
{{- end }}

{{- define "larder.isMany" -}}
{{- if eq .Values.mode "backends" }}yes{{- else if ne .Values.mode "embedded" }}{{ fail (printf "mode is %q; it is embedded or backends" .Values.mode) }}{{- end }}
{{- end }}

{{- /* Defaults stand here and not among the values: Helm would add them to the repositories that are given. null leaves one out. */}}
{{- define "larder.remotes" -}}
{{- $given := (.Values.config | default dict).remotes | default dict }}
{{- $remotes := dict }}
{{- range $name, $repository := $given }}
{{- if not (kindIs "invalid" $repository) }}
{{- $_ := set $remotes $name $repository }}
{{- end }}
{{- end }}
{{- if not (or $remotes (.Values.config | default dict).config_dir) }}
{{- range $name := list "npm" "pypi" }}
{{- if not (hasKey $given $name) }}
{{- $_ := set $remotes $name (dict "package" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $remotes }}
{{- end }}

{{- define "larder.scheme" -}}
{{- if (.Values.config | default dict).tls }}https{{ else }}http{{ end }}
{{- end }}

{{- /* Of all addresses to listen on. */}}
{{- define "larder.port" -}}
{{- $port := regexFind "[0-9]+$" .Values.listen }}
{{- range splitList "," .Values.listen }}
{{- if or (not $port) (not (hasSuffix (printf ":%s" $port) (trim .))) }}
{{- fail (printf "listen is %q: give addresses with one port, such as 0.0.0.0:8000" $.Values.listen) }}
{{- end }}
{{- end }}
{{- $port }}
{{- end }}

{{- define "larder.probe" -}}
httpGet: { path: {{ .path }}, port: http, scheme: {{ include "larder.scheme" .root | upper }} }
{{- end }}

{{- /* What the tier may hold: less than the pod's disk, on which spools are as well. */}}
{{- define "larder.tier" -}}
{{- if .Values.tier.size }}
{{- .Values.tier.size }}
{{- else }}
{{- $limit := .Values.tier.sizeLimit }}
{{- $text := ternary (printf "%.0f" $limit) (toString $limit) (kindIs "float64" $limit) }}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $text }}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := trimPrefix $number $text }}
{{- if not (and $number (hasKey $units $unit)) }}
{{- fail (printf "tier.sizeLimit is %q: give it as bytes or with Mi, Gi or Ti, or set tier.size" $text) }}
{{- end }}
{{- divf (mulf (float64 $number) (get $units $unit) 3) 4 | int64 }}
{{- end }}
{{- end }}

{{- define "larder.env" -}}
- name: LARDER_LISTEN
  value: {{ .Values.listen | quote }}
{{- with include "larder.tokenSecret" . }}
- name: LARDER_ADMIN_TOKEN
  valueFrom:
    secretKeyRef: { name: {{ . }}, key: {{ $.Values.adminToken.key }} }
{{- end }}
{{- if include "larder.isMany" . }}
{{- with .Values.database }}
- name: DBHOST
  value: {{ required "database.host: several replicas need PostgreSQL" .host | quote }}
- name: DBPORT
  value: {{ .port | quote }}
- name: DBNAME
  value: {{ .name | quote }}
- name: DBUSER
  value: {{ .user | quote }}
- name: DBPASS
  valueFrom:
    secretKeyRef: { name: {{ required "database.existingSecret: the Secret with the database's password" .existingSecret }}, key: {{ .passwordKey }} }
{{- end }}
{{- with .Values.s3 }}
- name: MINIO_ENDPOINT
  value: {{ required "s3.endpoint: several replicas need an S3 store" .endpoint | quote }}
- name: MINIO_BUCKET
  value: {{ .bucket | quote }}
- name: MINIO_SECURE
  value: {{ .secure | quote }}
{{- if .existingSecret }}
- name: MINIO_ACCESS_KEY
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .accessKeyKey }} }
- name: MINIO_SECRET_KEY
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .secretKeyKey }} }
{{- end }}
{{- end }}
{{- with .Values.redis }}
{{- if .existingSecret }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .urlKey }} }
{{- end }}
{{- end }}
{{- with .Values.cluster }}
{{- if .existingSecret }}
- name: POD_IP
  valueFrom:
    fieldRef: { fieldPath: status.podIP }
{{- /* No certificate holds for the address of a pod. */}}
{{- if ne (include "larder.scheme" $) "https" }}
# In brackets, of whichever kind it is.
- name: LARDER_ADVERTISE
  value: "[$(POD_IP)]:{{ include "larder.port" $ }}"
{{- end }}
- name: LARDER_CLUSTER_SECRET
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .key }} }
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "larder.pod" -}}
metadata:
  labels:
    {{- include "larder.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or .Values.podAnnotations (not .Values.serviceMonitor.enabled) }}
  annotations:
    {{- if not .Values.serviceMonitor.enabled }}
    prometheus.io/scrape: "true"
    prometheus.io/port: {{ include "larder.port" . | quote }}
    prometheus.io/path: /metrics
    prometheus.io/scheme: {{ include "larder.scheme" . }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "larder.serviceAccount" . }}
  # larder never asks the cluster's own API.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    # Only for a new volume: done at each start it would open the database to the group again.
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: larder
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: ["--config", "/etc/larder/larder.yaml"]
      env:
        {{- include "larder.env" . | nindent 8 }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ include "larder.port" . }}
      startupProbe:
        {{- include "larder.probe" (dict "root" . "path" "/live") | nindent 8 }}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        {{- include "larder.probe" (dict "root" . "path" "/live") | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        {{- include "larder.probe" (dict "root" . "path" "/ready") | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- if and .Values.preStopSleepSeconds (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) }}
      lifecycle:
        preStop:
          sleep: { seconds: {{ .Values.preStopSleepSeconds }} }
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: ["ALL"]
      volumeMounts:
        - name: data
          mountPath: /var/lib/larder
        # As a folder: a file mounted by `subPath` would never change, and larder reloads a changed configuration.
        - name: config
          mountPath: /etc/larder
          readOnly: true
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "larder.fullname" . }}
    {{- if include "larder.isMany" . }}
    - name: data
      emptyDir:
        sizeLimit: {{ .Values.tier.sizeLimit }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if include "larder.isMany" . }}
  topologySpreadConstraints:
    {{- with .Values.topologySpreadConstraints }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "larder.selector" $ | nindent 10 }}
    {{- end }}
    {{- end }}
  {{- end }}
{{- end }}
