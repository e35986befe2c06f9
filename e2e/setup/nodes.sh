#!/usr/bin/env bash
# Installs what nodes of a Kubernetes on this machine need beside e2e/setup/kubernetes.sh: containerd, runc and network
# plugins from Debian, CoreDNS, and the image that holds a pod's namespaces; and what builds the other images.
#
# Prints the archive of that image, takhin-e2e/pause:1.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PATH="$PATH:/usr/sbin:/sbin"
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need containerd containerd
need runc runc
need iptables iptables
need nft nftables
need ip iproute2
need conntrack conntrack
need nsenter util-linux
need gcc gcc
need kcat kcat
# The tests build the images (images.sh), and cannot install anything from where they are.
docker version >/dev/null 2>&1 || need dockerd docker.io
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
[ -e /usr/lib/x86_64-linux-gnu/libc.a ] || [ -e /usr/lib/aarch64-linux-gnu/libc.a ] || missing+=(libc6-dev)
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "this is not a Debian system: install ${missing[*]} by hand"
    say "apt-get install ${missing[*]}"
    as_root apt-get -qq update >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
fi

# The format is that of `docker save`: one layer, one configuration, and a list of both.
source_file="$SETUP_DIR/../kubernetes/pause/pause.c"
home="$TAKHIN_CACHE/kubernetes/pause-$(stamp_of "$source_file" "${BASH_SOURCE[0]}")"
if [ ! -f "$home/pause.tar" ]; then
    mkdir -p "$home/root"
    gcc -Os -static -s -Wall -Werror -o "$home/root/pause" "$source_file"
    tar -C "$home/root" --owner=0 --group=0 --mtime=@0 -cf "$home/layer.tar" pause
    arch="$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')"
    layer="$(sha256sum "$home/layer.tar" | cut -d' ' -f1)"
    printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$arch" "$layer" >"$home/config.json"
    echo '[{"Config":"config.json","RepoTags":["takhin-e2e/pause:1"],"Layers":["layer.tar"]}]' >"$home/manifest.json"
    tar -C "$home" -cf "$home/pause.tar.part" manifest.json config.json layer.tar
    mv "$home/pause.tar.part" "$home/pause.tar"
fi
echo "$home/pause.tar"
