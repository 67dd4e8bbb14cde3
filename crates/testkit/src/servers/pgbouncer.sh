# PROGRAM PORT SERVER_PORT USER PASSWORD: starts PgBouncer in transaction mode in a new directory, says "ready", and ends it when
# standard input ends.
program=$1 port=$2 server=$3 user=$4 password=$5
dir=$(mktemp -d /tmp/larder-pgbouncer.XXXXXX) || exit 1
printf '"%s" "%s"\n' "$user" "$password" >"$dir/users"
cat >"$dir/ini" <<INI
[databases]
* = host=127.0.0.1 port=$server
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $dir/users
pool_mode = transaction
default_pool_size = 5
server_round_robin = 1
max_client_conn = 200
INI
"$program" "$dir/ini" >"$dir/log" 2>&1 </dev/null &
pid=$!
tries=0
until grep -q 'process up' "$dir/log"; do
  tries=$((tries + 1))
  if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
    cat "$dir/log"
    rm -rf "$dir"
    exit 1
  fi
  sleep 0.05
done
echo ready
cat >/dev/null
kill -INT "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
rm -rf "$dir"
