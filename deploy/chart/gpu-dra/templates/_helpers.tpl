{{- define "gpu-dra.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name when it contains the chart's, as most charts do. Cut to leave room for the longest suffix. */}}
{{- define "gpu-dra.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 38 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 38 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gpu-dra.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "gpu-dra.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}

{{/* Service account of a component: dict "context" $ "component" "controller". */}}
{{- define "gpu-dra.serviceAccountName" -}}
{{- printf "%s-%s" (default (include "gpu-dra.fullname" .context) .context.Values.serviceAccount.name) .component }}
{{- end }}

{{- define "gpu-dra.selectorLabels" -}}
{{- if .context.Values.selectorLabelsOverride -}}
{{ toYaml .context.Values.selectorLabelsOverride }}
{{- else -}}
app.kubernetes.io/name: {{ include "gpu-dra.name" .context }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
{{- end }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of every object: dict "context" $, and "component" where it belongs to one. */}}
{{- define "gpu-dra.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "gpu-dra.name" .context }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "gpu-dra.podLabels" -}}
{{- $labels := fromYaml (include "gpu-dra.labels" .) }}
{{- $selector := fromYaml (include "gpu-dra.selectorLabels" .) }}
{{- toYaml (mergeOverwrite (omit $labels "helm.sh/chart") (default (dict) .podLabels) $selector) }}
{{- end }}

{{/* The spec of the DriverConfiguration that both programs read; empty without any setting. */}}
{{- define "gpu-dra.spec" -}}
{{- $spec := deepCopy .Values.config }}
{{- range $name := list "mig" "sharing" }}
{{- with get $.Values $name }}
{{- $_ := set $spec $name . }}
{{- end }}
{{- end }}
{{- with .Values.consumableShares }}
{{- $_ := set $spec "sharing" (mergeOverwrite (dict "consumableShares" (toString .)) (default (dict) (get $spec "sharing"))) }}
{{- end }}
{{- if $spec }}
{{- toYaml $spec }}
{{- end }}
{{- end }}

{{/* Settings of `config` that templates need too, with the program's own defaults. */}}
{{- define "gpu-dra.driverName" -}}
{{- default "gpu.nvidia.com" .Values.config.driverName }}
{{- end }}

{{- define "gpu-dra.cdiRoot" -}}
{{- default "/var/run/cdi" (dig "cdi" "root" "" .Values.config) }}
{{- end }}

{{- define "gpu-dra.leaseName" -}}
{{- default "gpu-dra-controller" (dig "controller" "leaderElection" "leaseName" "" .Values.config) }}
{{- end }}

{{- define "gpu-dra.leaseNamespace" -}}
{{- default (include "gpu-dra.namespace" .) (dig "controller" "leaderElection" "namespace" "" .Values.config) }}
{{- end }}

{{/* The port of an address such as ":8080". */}}
{{- define "gpu-dra.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{- define "gpu-dra.logLevel" -}}
{{- $verbosity := toString .Values.logVerbosity }}
{{- if ne $verbosity "" }}
{{- ternary "debug" "info" (ge (int $verbosity) 5) }}
{{- end }}
{{- end }}

{{/* What all programs are told alike. */}}
{{- define "gpu-dra.settingsEnv" -}}
{{- with include "gpu-dra.logLevel" . }}
- name: LOG_LEVEL
  value: {{ . }}
{{- end }}
{{- if include "gpu-dra.spec" . }}
- name: CONFIG_FILE
  value: /etc/gpu-dra/driver.yaml
{{- end }}
{{- end }}

{{/* The same, and what those that talk to the API server are told besides. */}}
{{- define "gpu-dra.commonEnv" -}}
- name: NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if .Values.featureGates }}
{{- $gates := list }}
{{- range $gate, $on := .Values.featureGates }}
{{- $gates = append $gates (printf "%s=%t" $gate $on) }}
{{- end }}
- name: FEATURE_GATES
  value: {{ join "," $gates | quote }}
{{- end }}
{{- include "gpu-dra.settingsEnv" . }}
{{- end }}

{{- define "gpu-dra.configMount" -}}
{{- if include "gpu-dra.spec" . -}}
- name: config
  mountPath: /etc/gpu-dra
  readOnly: true
{{- end }}
{{- end }}

{{- define "gpu-dra.configVolume" -}}
{{- if include "gpu-dra.spec" . -}}
- name: config
  configMap: {name: {{ include "gpu-dra.fullname" . }}-config}
{{- end }}
{{- end }}

{{/* A changed configuration makes new pods: the programs read it at their start only. */}}
{{- define "gpu-dra.podAnnotations" -}}
{{- $annotations := default (dict) .annotations }}
{{- with include "gpu-dra.spec" .context }}
{{- $annotations = merge (dict "checksum/config" (sha256sum .)) $annotations }}
{{- end }}
{{- if $annotations }}
{{- toYaml $annotations }}
{{- end }}
{{- end }}

{{/* Whether nodes get an MPS supervisor; empty for no. */}}
{{- define "gpu-dra.mpsSupervisor" -}}
{{- $gate := dig "MPSSupport" true (merge (dict) .Values.featureGates (default (dict) .Values.config.featureGates)) }}
{{- if and .Values.mpsSupervisor.enabled $gate }}true{{ end }}
{{- end }}

{{/* Components with pods of their own and their values. */}}
{{- define "gpu-dra.components" -}}
{{- $components := dict "controller" .Values.controller "kubelet-plugin" .Values.kubeletPlugin }}
{{- if include "gpu-dra.mpsSupervisor" . }}
{{- $_ := set $components "mps-supervisor" .Values.mpsSupervisor }}
{{- end }}
{{- toYaml $components }}
{{- end }}

{{/* What the programs on a node see of its hardware, simulated or not. */}}
{{- define "gpu-dra.hardwareEnv" -}}
{{- $simulated := .Values.simulated }}
{{- if $simulated.enabled }}
{{- $tree := printf "%s/host" $simulated.folder -}}
# The tree is the driver's root and the host's at once, at the same path inside and outside.
- name: SIMULATED_STATE
  value: {{ $simulated.folder }}/gpus.json
- name: NVIDIA_DRIVER_ROOT
  value: {{ $tree }}
- name: CONTAINER_DRIVER_ROOT
  value: {{ $tree }}
- name: HOST_ROOT
  value: {{ $tree }}
{{- else -}}
- name: NVIDIA_DRIVER_ROOT
  value: {{ .Values.nvidiaDriverRoot }}
- name: CONTAINER_DRIVER_ROOT
  value: /driver-root
- name: HOST_ROOT
  value: /host-root
# Where NVIDIA's container runtime is the default one, it must not put a driver into this container.
- name: NVIDIA_VISIBLE_DEVICES
  value: void
{{- end }}
{{- end }}

{{- define "gpu-dra.hardwareMounts" -}}
{{- if .Values.simulated.enabled -}}
- name: simulated
  mountPath: {{ .Values.simulated.folder }}
{{- else -}}
# HostToContainer: a driver container may mount the driver after this pod has started, and what is unmounted on
# the host must not be held here.
- name: driver-root
  mountPath: /driver-root
  readOnly: true
  mountPropagation: HostToContainer
# /dev where the driver root has none, /sys, /proc, and nvidia-cdi-hook when it is not the driver's.
- name: host-root
  mountPath: /host-root
  readOnly: true
  mountPropagation: HostToContainer
{{- end }}
{{- end }}

{{/* Whether the plugin limits memory of GPUs by cgroup: where the driver can, which the plugin finds. */}}
{{- define "gpu-dra.limitsMemory" -}}
{{- if or (not .Values.simulated.enabled) .Values.simulated.cgroups.root }}true{{ end }}
{{- end }}

{{- define "gpu-dra.hardwareVolumes" -}}
{{- if .Values.simulated.enabled -}}
- name: simulated
  hostPath: {path: {{ .Values.simulated.folder }}, type: DirectoryOrCreate}
{{- else -}}
# The driver container makes it, perhaps later.
- name: driver-root
  hostPath: {path: {{ .Values.nvidiaDriverRoot }}, type: DirectoryOrCreate}
- name: host-root
  hostPath: {path: /, type: Directory}
{{- end }}
{{- end }}
