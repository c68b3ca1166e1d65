#!/bin/sh
# Makes lambda.zip, which the module uploads: the relay as bootstrap, for the runtime provided.al2023.
#   lambda.sh [arm64 | x86_64]     arm64 by default, like the variable lambda_architecture
# The same sources, Go version and zip give the same bytes, so that an unchanged relay is not deployed again.
set -eu
case ${1:-arm64} in
arm64) arch=arm64 ;;
x86_64 | amd64) arch=amd64 ;;
*)
	echo "usage: lambda.sh [arm64 | x86_64]" >&2
	exit 2
	;;
esac
command -v zip >/dev/null || {
	echo "lambda.sh: zip is not installed" >&2
	exit 1
}
cd "$(dirname "$0")"
version=$(git describe --tags --always --dirty 2>/dev/null || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(
	cd ..
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -tags lambda.norpc \
		-ldflags "-s -w -X main.version=$version" -o "$work/bootstrap" ./relay
)
chmod 0755 "$work/bootstrap"
# A zip holds times and, but for -X, who made it.
TZ=UTC touch -t 198001010000 "$work/bootstrap"
(cd "$work" && TZ=UTC zip -q -X -9 lambda.zip bootstrap)
mv "$work/lambda.zip" lambda.zip
echo "lambda.zip: $arch, version ${version:-unknown}"
