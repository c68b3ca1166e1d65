#!/bin/sh
# Writes README.md's tables of variables and outputs from variables.tf and outputs.tf.
#   docs.sh          rewrites README.md
#   docs.sh --check  fails if README.md is not up to date
set -eu
cd "$(dirname "$0")"

# Reads blocks as terraform fmt leaves them: two spaces before an argument, the closing brace in the first column.
table() {
	awk -v kind="$1" '
		function flush() {
			gsub(/\|/, "\\|", description)
			if (kind == "variable") printf "| `%s` | %s | `%s` | %s |\n", name, description, type, (has ? "`" value "`" : "required")
			else printf "| `%s` | %s |\n", name, description
		}
		function depth(text,   opened, closed) {
			opened = gsub(/[{([]/, "", text); closed = gsub(/[})\]]/, "", text)
			return opened - closed
		}
		# An argument that goes on over several lines becomes one line.
		function whole(text,   open, rest) {
			open = depth(text)
			while (open > 0 && (getline rest) > 0) {
				open += depth(rest)
				gsub(/^ +| +$/, "", rest); gsub(/ +/, " ", rest)
				if (text ~ /[{(\[]$/ || rest ~ /^[})\]]/) text = text " " rest
				else text = text ", " rest
			}
			return text
		}
		$1 == kind { name = $2; gsub(/"/, "", name); description = type = value = ""; has = 0; next }
		/^  description *=/ { sub(/^[^"]*"/, ""); sub(/"$/, ""); description = $0; gsub(/\\"/, "\"", description); next }
		/^  type *=/ { sub(/^ *type *= */, ""); type = whole($0); next }
		/^  default *=/ { sub(/^ *default *= */, ""); value = whole($0); has = 1; next }
		/^}/ && name != "" { flush(); name = "" }
	' "$2"
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
	sed '/^<!-- tables: begin/q' README.md
	echo
	echo "| variable | what it is | type | default |"
	echo "|---|---|---|---|"
	table variable variables.tf
	echo
	echo "| output | what it is |"
	echo "|---|---|"
	table output outputs.tf
	echo
	sed -n '/^<!-- tables: end/,$p' README.md
} >"$new"

if [ "${1:-}" = --check ]; then
	diff -u README.md "$new" || { echo "README.md is not up to date: run terraform/docs.sh" >&2; exit 1; }
else
	cat "$new" >README.md
fi
