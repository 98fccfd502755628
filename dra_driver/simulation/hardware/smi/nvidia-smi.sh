#!/bin/sh
# nvidia-smi of a simulated node. With gpu-dra's Python at hand it asks the simulated NVML; elsewhere (in a container)
# it shows the GPUs of the table below whose device node exists.
python=@PYTHON@
packages=@PACKAGES@
state=@STATE@
if [ -x "$python" ] && [ -e "$packages/dra_driver/simulation/hardware/smi/program.py" ] && [ -e "$state" ]; then
  PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m dra_driver.simulation.hardware.smi "$state" "$@"
fi

dev=@DEV@
words="$*" command=table ids='' fields='' format='' display=''
set -f
IFS=' ,'  # lists are written with commas
@MACHINE@

refuse() {
  echo "nvidia-smi $words: $1" >&2
  exit 2
}
no_devices() {
  echo 'No devices were found'
  exit 6
}

while [ $# -gt 0 ]; do
  option=${1%%=*} value=''
  case $1 in *=*) value=${1#*=} ;; esac
  case $option in
    -i | --id | -d | --display | --format | --query-gpu | --query-compute-apps)
      if [ -z "$value" ] && [ $# -gt 1 ]; then
        shift
        value=$1
      fi
      [ -n "$value" ] || refuse "$option needs a value"
      ;;
    *) [ -z "$value" ] || refuse "$option takes no value" ;;
  esac
  case $option in
    -i | --id) ids=$value ;;
    -d | --display) display=$value ;;
    --format) format=$value ;;
    --query-gpu) command=query fields=$value ;;
    --query-compute-apps) command=apps fields=$value ;;
    -q | --query) command=log ;;
    -L | --list-gpus) command=list ;;
    --version) command=version ;;
    -l | --loop | -lms | --loop-ms) refuse 'does not loop; the values change only when somebody changes the machine' ;;
    *) refuse 'not simulated in a container; try no option, -L, -q, --version, or --query-gpu=... --format=csv' ;;
  esac
  shift
done
case $command${display:+ -d}${format:+ --format} in
  table | list | version | log | 'log -d' | 'query --format' | 'apps --format') ;;
  query | apps) refuse 'a query needs --format=csv, with noheader and nounits if wanted: --format=csv,noheader' ;;
  *) refuse 'these options do not go together' ;;
esac
for each in $display; do
  case ,@DISPLAYS@, in *",$each,"*) ;; *) refuse "there is no section $each; -d takes @DISPLAYS@" ;; esac
done
for each in $format; do
  case $each in csv | noheader | nounits) ;; *) refuse "--format does not know $each" ;; esac
done
formatted() {
  case ",$format," in *[,\ ]"$1"[,\ ]*) return 0 ;; esac
  return 1
}
[ -z "$format" ] || formatted csv || refuse '--format needs csv'

# The table says "gpu" after the variables of a GPU are set, "mig" for each of its MIG devices, and "end". They look
# which device nodes are here, and call the function of that end that belongs to $visit.
see() {
  visit=$1 index=0
  table
}
limit() {  # inode of a cgroup, its line in /proc/self/cgroup, what is seen of the GPU in it
  case "$own:$cgroups" in "$1":* | *"$2"*) eval "$3" ;; esac
}
gpu() {
  shown=0 device=0
  [ -e "$dev/nvidia$v_minor" ] || return 0
  v_index=$index index=$((index + 1)) known="$known $v_index $v_ids"
  chosen || return 0
  shown=1
  "$visit"_gpu
}
chosen() {
  [ -n "$ids" ] || return 0
  for each in $ids; do
    case " $v_index $v_ids " in *" $each "*) return 0 ;; esac
  done
  return 1
}
mig() {  # capability minors of GPU and compute instance, then its texts
  [ "$shown" = 1 ] && [ -e "$dev/nvidia-caps/nvidia-cap$1" ] && [ -e "$dev/nvidia-caps/nvidia-cap$2" ] || return 0
  @MIG_VARIABLES@
  v_device_index=$device device=$((device + 1))
  "$visit"_mig
}
end() {
  [ "$shown" = 0 ] || "$visit"_end
}

count_gpu() { :; }
count_mig() { :; }
count_end() { :; }

list_gpu() {
@LIST_GPU@
}
list_mig() {
@LIST_MIG@
}
list_end() { :; }

rows_gpu() {
@GPU_ROWS@
  [ "$v_mig_mode_current" != Enabled ] || enabled=1
}
rows_mig() { :; }
rows_end() { :; }
devices_gpu() { :; }
devices_mig() {
  devices=1
@MIG_ROWS@
}
devices_end() { :; }
summary() {
  enabled=0 devices=0
@TABLE_HEAD@
  see rows
  if [ "$enabled" = 1 ]; then
@MIG_HEAD@
    see devices
    if [ "$devices" = 0 ]; then
@NO_MIG_ROWS@
    fi
  fi
@PROCESSES@
}

wanted() {  # whether -d asks for the section; without a name: one that only the whole log has
  [ -n "$display" ] || return 0
  case ",$display," in *[,\ ]"${1:-,}"[,\ ]*) return 0 ;; esac
  return 1
}
log_gpu() {
@LOG_GPU@
}
log_mig() {
@LOG_MIG@
}
log_end() {
@LOG_END@
@LOG_GPU_ENDS@
}
log() {
@LOG_HEAD@
  see log
}

gpu_field() {  # sets heading, unit and value of the field
  case $1 in
@GPU_FIELDS@
    *) return 1 ;;
  esac
}
app_field() {
  case $1 in
@APP_FIELDS@
    *) return 1 ;;
  esac
}
heading() {  # the function of the fields
  row='' comma=''
  for field in $fields; do
    if ! "$1" "$field"; then
      printf 'Field "%s" is not a valid field to query.\n\n' "$field"
      exit 2
    fi
    row="$row$comma$heading${unit:+ [$unit]}" comma=', '
  done
  formatted noheader || printf '%s\n' "$row"
}
query_gpu() {
  row='' comma=''
  for field in $fields; do
    gpu_field "$field"
    if [ "$value" = N/A ]; then
      value='[N/A]'
    elif [ -n "$unit" ] && formatted nounits; then
      value=${value% "$unit"}
    fi
    row="$row$comma$value" comma=', '
  done
  printf '%s\n' "$row"
}
query_mig() { :; }
query_end() { :; }

table() {
@TABLE@
  :
}

if [ "$command" = version ]; then
@VERSION@
  exit 0
fi
v_date=N/A v_timestamp=N/A known='' cgroups='|' own=''
if [ -r /proc/self/cgroup ]; then
  while read -r line; do cgroups="$cgroups$line|"; done </proc/self/cgroup
fi
if [ -e /sys/fs/cgroup/cgroup.procs ] && command -v ls >/dev/null 2>&1; then
  # In a cgroup namespace of its own a container sees its cgroup as the root.
  own=$(ls -di /sys/fs/cgroup) own=${own#"${own%%[! ]*}"} own=${own%% *}
fi
if command -v date >/dev/null 2>&1; then
  v_date=$(LC_ALL=C date '+%a %b %e %H:%M:%S %Y') v_timestamp=$(date '+%Y/%m/%d %H:%M:%S').000
fi
see count
v_count=$index
[ "$v_count" -gt 0 ] || no_devices
for each in $ids; do
  case "$known " in *" $each "*) ;; *) no_devices ;; esac
done
case $command in
  table) summary ;;
  list) see list ;;
  log) log ;;
  query)
    heading gpu_field
    see query
    ;;
  apps) heading app_field ;;  # other processes than its own are not seen in a container
esac
exit 0
