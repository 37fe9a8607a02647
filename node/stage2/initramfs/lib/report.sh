# Tells the boot service the phases of this boot. A report that cannot be delivered stops nothing.
# The deadline is that of `timeout`: the wget of Debian 12's busybox crashes on its own option -T.
# shellcheck shell=sh

REPORT_TIMEOUT_S=5
REPORT_ATTEMPTS=2

# report PHASE STATE [REASON]
report() {
    body="{\"phase\": \"$1\", \"state\": \"$2\", \"uptime_s\": $(uptime_s), \"reason\": $(json_text "${3:-}"), \"data\": {}}"
    attempt=0
    while [ $attempt -lt $REPORT_ATTEMPTS ]; do
        timeout $REPORT_TIMEOUT_S wget -q -O /dev/null --header "Authorization: Bearer $KOGUMA_TOKEN" \
            --header "Content-Type: application/json" --post-data "$body" \
            "$KOGUMA_URL/ipxe/$KOGUMA_UUID/phase" 2>/dev/null && return 0
        attempt=$((attempt + 1))
        sleep 1
    done
    say "the report $1 $2 was not delivered"
}

# json_text TEXT: a JSON string, or null when empty.
json_text() {
    [ -n "$1" ] || { echo null; return; }
    printf '"%s"' "$(printf %s "$1" | tr -d '\000-\037\177' | sed 's/[\\"]/\\&/g')"
}

# Reports that were started in the background must come before the next one.
wait_for_reports() {
    [ -z "${reports:-}" ] || wait "$reports"
    reports=
}
