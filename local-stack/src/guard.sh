# Runs one server and stops it when the program that started it is gone.
#
# usage: sh -c SCRIPT guard LOG GRACE_TENTHS PROGRAM [ARGUMENT...]
#
# stdin   a pipe whose other end only the parent holds. A line is a command ("term", "kill");
#         the end of the file means that the parent has died or released the server.
# stdout  a pipe: one line with the process id of the server.
# stderr  a descriptor that nothing is written to. It is kept open until the server has ended,
#         and so keeps the lock or pipe behind it.
log=$1
grace_tenths=$2
shift 2
exec 3<&0 4>&2 </dev/null 2>/dev/null

# The server gets neither the pipe nor the kept descriptor.
"$@" >>"$log" 2>&1 3<&- 4>&- &
server=$!
echo "$server"
exec >/dev/null

# The watcher blocks on the pipe; the guard itself has to wait for the server.
(
    while read -r command <&3; do
        case $command in
        term) kill -TERM "$server" ;;
        kill) kill -KILL "$server" ;;
        esac
    done
    # From here on the watcher ends by itself. A signal must not end it during a nap, or
    # `sleep` would be orphaned.
    trap '' TERM
    kill -TERM "$server"
    while [ "$grace_tenths" -gt 0 ] && kill -0 "$server"; do
        # Fractions of a second are not in POSIX.
        sleep 0.1 || sleep 1
        grace_tenths=$((grace_tenths - 1))
    done
    kill -KILL "$server"
) &
watcher=$!
exec 3<&-

wait "$server"
status=$?
kill -TERM "$watcher"
wait "$watcher"
exit "$status"
