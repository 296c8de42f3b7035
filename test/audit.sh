#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is known against the program and what it is made of. make audit builds
# bin/l2bridge first.
#
#	GOVULNDB=URL  another database of vulnerabilities than vuln.go.dev, such as a
#	              mirror, or file:///DIR with a copy
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p dist

echo '== licences of what is built in (bill of materials: dist/sbom.json)'
go -C test/tools run ./audit "$PWD/bin/l2bridge" "$PWD/dist/sbom.json" "$PWD"

echo '== known vulnerabilities (govulncheck)'
status=0
go tool -modfile=test/tools/go.mod govulncheck ${GOVULNDB:+-db "$GOVULNDB"} ./... >dist/vulnerabilities.txt 2>&1 || status=$?
cat dist/vulnerabilities.txt
# 3 is what it was asked for; it has no number of its own for a database that it
# cannot reach.
if [[ $status -ne 0 && $status -ne 3 ]] && grep -q 'fetching vulnerabilities' dist/vulnerabilities.txt; then
	echo 'NOT CHECKED: the database of vulnerabilities cannot be reached (set GOVULNDB, or run this elsewhere)'
	exit 0
fi
exit "$status"
