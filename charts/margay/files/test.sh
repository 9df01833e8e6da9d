# Asks the pod on each node for its node's name. Their addresses come from DNS, once no more of them are added.
set -u
say() { echo "$*"; }
addresses() { nslookup "$PEERS" 2>/dev/null | awk '/^Name:/ { found = 1 } found && /^Address/ { print $NF }' | sort -u; }
known=""
same=0
tries=0
while [ "$same" -lt 5 ]; do
  now=$(addresses)
  if [ -n "$now" ] && [ "$now" = "$known" ]; then same=$((same + 1)); else same=0; fi
  known=$now
  tries=$((tries + 1))
  if [ "$tries" -gt 120 ]; then
    say "FAILED: no steady answer for $PEERS within two minutes: are the pods of the test running, and does cluster DNS work?"
    exit 1
  fi
  sleep 1
done
failed=0
total=0
for address in $known; do
  total=$((total + 1))
  case $address in *:*) host="[$address]" ;; *) host=$address ;; esac
  if node=$(wget -q -T 5 -O - "http://$host:8080/"); then
    say "ok      $address on $node"
  else
    failed=$((failed + 1))
    say "FAILED  $address: no answer within 5 s; on its node and on this one: margayctl status"
  fi
done
say "$((total - failed)) of $total pods answered"
[ "$failed" -eq 0 ]
