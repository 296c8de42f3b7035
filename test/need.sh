#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: need.sh COMMAND:PACKAGE...
# Installs the Debian package of each command that is not there.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

missing=()
for need; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[[ ${#missing[@]} -eq 0 ]] && exit

if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
	echo "need.sh: missing: ${missing[*]} (Debian's names); install them, or run as root on Debian" >&2
	exit 1
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >&2
apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
