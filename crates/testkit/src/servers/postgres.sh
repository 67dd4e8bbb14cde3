# PROGRAMS PORT SETTINGS USER PASSWORD [PRIMARY_PORT]: makes a server in a new directory, starts it, says "ready", and does what the lines of its
# standard input say: stop, kill, start, promote. With a primary it is a standby of that. When they end, the server and its directory go.
programs=$1 port=$2 settings=$3 user=$4 password=$5 primary=$6
dir=$(mktemp -d /tmp/larder-postgres.XXXXXX) || exit 1
printf '%s\n' "$password" >"$dir/password"
if [ -n "$primary" ]; then
  PGPASSWORD=$password "$programs/pg_basebackup" -h 127.0.0.1 -p "$primary" -U "$user" -D "$dir/data" -R -X stream \
    --checkpoint=fast --no-sync >"$dir/backup.log" 2>&1 || { cat "$dir/backup.log"; rm -rf "$dir"; exit 1; }
else
  "$programs/initdb" -D "$dir/data" -U "$user" -A scram-sha-256 --pwfile="$dir/password" -E UTF8 --locale=C --no-sync \
    >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log"; rm -rf "$dir"; exit 1; }
fi

# A server whose predecessor was killed waits until the sessions of that one have ended.
start() {
  tries=0
  while :; do
    # shellcheck disable=SC2086
    "$programs/postgres" -D "$dir/data" -p "$port" -k "$dir" -c listen_addresses=127.0.0.1 -c max_connections=200 \
      -c shared_buffers=32MB $settings >>"$dir/log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
      "$programs/pg_isready" -q -h 127.0.0.1 -p "$port" && return
      sleep 0.05
    done
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { cat "$dir/log"; rm -rf "$dir"; exit 1; }
    sleep 0.1
  done
}

start
echo ready
while read -r word; do
  case $word in
    stop) kill -INT "$pid"; wait "$pid" ;;
    kill) kill -KILL "$pid"; wait "$pid" 2>/dev/null ;;
    start) start ;;
    promote) "$programs/pg_ctl" -D "$dir/data" -w promote >/dev/null ;;
  esac
  echo "$word"
done
kill -QUIT "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
rm -rf "$dir"
