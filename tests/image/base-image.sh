#!/usr/bin/env bash
# A stand-in for docker.io/library/python:3.13-slim, for machines that reach a Debian mirror but no container registry:
# Debian bookworm by debootstrap with this machine's CPython 3.13, CA bundle and pip configuration. The Dockerfile
# builds on it unchanged.
#
#   base-image.sh          make the image, about 35 s; nothing once it is there
#   base-image.sh --env    print the exports that lead podman to it
#
# It lives in a podman store of its own below ~/.cache, so that nobody takes it for the real image. Needs root (or
# a working rootless podman), podman, runc and debootstrap.
set -euo pipefail
series=3.13
tag=docker.io/library/python:$series-slim
home=${BASE_IMAGE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/celery-monitor-base-image}
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$home"

# runc, cgroupfs and explicit limits work in nested containers too, where crun and systemd do not.
cat >"$home/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
CONF
cat >"$home/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$home/storage"
runroot = "$home/run"
CONF
export CONTAINERS_CONF=$home/containers.conf CONTAINERS_STORAGE_CONF=$home/storage.conf
if [[ ${1:-} == --env ]]; then
    # Without the docker format the image would lose its HEALTHCHECK.
    printf 'export %s\n' "CONTAINERS_CONF=$CONTAINERS_CONF" "CONTAINERS_STORAGE_CONF=$CONTAINERS_STORAGE_CONF" \
        BUILDAH_FORMAT=docker
    exit 0
fi

fail() {
    echo "base-image: $1" >&2
    exit 1
}
for tool in podman runc debootstrap; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done
if podman image exists "$tag"; then
    exit 0
fi

find_python() {
    local prefix
    for prefix in "$(pyenv prefix "$(pyenv latest "$series" 2>/dev/null)" 2>/dev/null)" \
        "$("python$series" -c 'import sys; print(sys.base_prefix)' 2>/dev/null)"; do
        if [[ -x $prefix/bin/python$series ]]; then
            echo "$prefix"
            return
        fi
    done
    return 1
}
prefix=$(find_python) || fail "no CPython $series on this machine"

# shellcheck disable=SC2016 # apt's own variable
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
[[ -n $mirror ]] || fail "apt knows no mirror of Debian bookworm"
root=$(mktemp -d "$home/rootfs.XXXXXX")
trap 'rm -rf "$root"' EXIT
packages=(
    ca-certificates netbase tzdata libssl3 libffi8 libsqlite3-0 libbz2-1.0 liblzma5 libreadline8 libncursesw6 libuuid1
    zlib1g libexpat1
)
if ! debootstrap --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" bookworm "$root" "$mirror" \
    >"$home/debootstrap.log" 2>&1; then
    tail -n 5 "$home/debootstrap.log" >&2
    fail "debootstrap failed"
fi

python=("--exclude=__pycache__" "--exclude=*.a" "--exclude=bin/pip*" "--exclude=share")
for part in test idlelib tkinter lib-dynload/_tkinter\* site-packages; do
    python+=("--exclude=lib/python$series/$part")
done
tar -C "$prefix" "${python[@]}" -cf - bin lib include | tar -C "$root/usr/local" -xf -
ln -sf "python$series" "$root/usr/local/bin/python3"
ln -sf "python$series" "$root/usr/local/bin/python"
for script in "$root"/usr/local/bin/*; do
    if [[ ! -L $script && $(head -c 2 "$script" | tr -d '\0') == '#!' ]]; then
        sed -i "1s|^#!$prefix/bin/|#!/usr/local/bin/|" "$script"
    fi
done
chroot "$root" ldconfig
chroot "$root" /usr/local/bin/python3 -m ensurepip >/dev/null 2>&1
ln -sf pip3 "$root/usr/local/bin/pip"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
if [[ -f /etc/pip.conf ]]; then cp /etc/pip.conf "$root/etc/pip.conf"; fi
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

tar -C "$root" --numeric-owner -cf - . | podman import \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' - "$tag" >/dev/null
echo "base-image: $tag is ready"
