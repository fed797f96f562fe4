#!/usr/bin/env bash
# Makes a Debian or Ubuntu machine the demo: docker, kind, kubectl and bpftool, the image of zproxy, a kind cluster of
# three nodes, zproxy on each of them, and a client and a server. As root, as often as you like: what is there already
# is left alone. With --dry-run it says what it would do and changes nothing.
set -euo pipefail

readonly kind_version=v0.29.0
declare -rA kind_sha256=(
	[x86_64]=c72eda46430f065fb45c5f70e7c957cc9209402ef309294821978677c8fb3284
	[aarch64]=03d45095dbd9cc1689f179a3e5e5da24b77c2d1b257d7645abf1b4174bebcf2a
)
declare -rA kind_architecture=([x86_64]=amd64 [aarch64]=arm64)
# kubectl comes out of it: the one that fits the cluster, and pinned with it.
readonly kubectl_version=v1.33.1
readonly node_image=docker.io/kindest/node:$kubectl_version@sha256:050072256b9a903bd914c0b2866828150cb229cea0efe5892e2b644d5dd3b34f
readonly cluster=ztunnel-lab
readonly image=zproxy:dev
readonly bin=${ZPROXY_BIN_DIR:-/usr/local/bin}

is_new=
project=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
user=
dry_run=

say() { printf 'provision: %s\n' "$*"; }
die() {
	say "$@" >&2
	exit 1
}

# run COMMAND...: everything that changes something goes through here.
run() {
	if [[ $dry_run ]]; then
		printf 'would run:'
		printf ' %q' "$@"
		printf '\n'
	else
		"$@"
	fi
}

parse() {
	while (($#)); do
		case $1 in
			--project) project=${2:?--project DIR} && shift ;;
			--user) user=${2:?--user NAME} && shift ;;
			--dry-run) dry_run=yes ;;
			*) die "there is no option $1" ;;
		esac
		shift
	done
	[[ -e $project/vagrant/image/Dockerfile ]] || die "$project is not zproxy's project; name it with --project DIR"
}

check_kernel() {
	local major minor
	IFS=. read -r major minor _ < <(uname -r)
	((major > 6 || (major == 6 && minor >= 6))) ||
		die "zproxy needs Linux 6.6 or newer and this is $(uname -r): use Debian 13, Ubuntu 24.04 or later."
}

# The box's file system may be smaller than the disk that it was given.
grow_root() {
	local device disk
	command -v growpart >/dev/null || return 0
	device=$(findmnt --noheadings --output SOURCE /)
	disk=$(lsblk --noheadings --output PKNAME "$device")
	# It fails when there is nothing to grow.
	if growpart --dry-run "/dev/$disk" "${device##*[!0-9]}" >/dev/null 2>&1; then
		run growpart "/dev/$disk" "${device##*[!0-9]}"
		run resize2fs "$device"
	fi
}

# has NAME: tells whether a Debian package has a version to install.
has() { [[ $(apt-cache policy "$1" 2>/dev/null) == *"Candidate: "[0-9]* ]]; }

install_packages() {
	local -a packages=()
	command -v docker >/dev/null || packages+=(docker.io)
	command -v curl >/dev/null || packages+=(ca-certificates curl)
	command -v python3 >/dev/null || packages+=(python3)
	if ! bpftool version >/dev/null 2>&1; then
		# Ubuntu 24.04 has it as a part of each kernel's tools.
		if has bpftool || ! has linux-tools-generic; then packages+=(bpftool); else packages+=(linux-tools-common linux-tools-generic); fi
	fi
	((${#packages[@]})) || return 0
	say "installing Debian packages: ${packages[*]}"
	run apt-get -qq update
	run env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --yes \
		--no-install-recommends "${packages[@]}"
}

start_docker() {
	docker info >/dev/null 2>&1 || run systemctl enable --now docker
	[[ -z $user ]] || id -nG "$user" | grep -qw docker || run usermod --append --groups docker "$user"
}

install_kind() {
	local machine url file
	machine=$(uname -m)
	[[ ${kind_sha256[$machine]:-} ]] || die "kind is not there for $machine"
	[[ $(kind version 2>/dev/null) != *"$kind_version "* ]] || return 0
	url=https://github.com/kubernetes-sigs/kind/releases/download/$kind_version/kind-linux-${kind_architecture[$machine]}
	say "downloading $url"
	file=$download/kind
	run curl --fail --silent --show-error --location --proto =https --retry 3 --output "$file" "$url"
	if [[ ! $dry_run ]] && ! sha256sum --check --status <<<"${kind_sha256[$machine]}  $file"; then
		die "$url is not what was published with kind $kind_version: its SHA-256 is another. Do not use it."
	fi
	run install -m 0755 -- "$file" "$bin/kind"
}

install_demo() {
	[[ $(readlink -- "$bin/zproxy-demo" 2>/dev/null) == "$project/vagrant/zproxy-demo" ]] ||
		run ln -sfn -- "$project/vagrant/zproxy-demo" "$bin/zproxy-demo"
}

build_image() {
	# Docker's own cache makes this fast when nothing has changed.
	run docker build --quiet --file "$project/vagrant/image/Dockerfile" --tag "$image" "$project"
}

make_cluster() {
	kind get clusters 2>/dev/null | grep -qx "$cluster" ||
		run kind create cluster --image "$node_image" --config "$project/vagrant/kind.yaml" --wait 180s
	[[ -z $user ]] || share_access
}

install_kubectl() {
	[[ $(kubectl version --client 2>/dev/null) != *"$kubectl_version"* ]] || return 0
	run docker cp --quiet "$cluster-control-plane:/usr/bin/kubectl" "$bin/kubectl"
}

# Whoever logs in may use the cluster as well.
share_access() {
	local home
	home=$(getent passwd "$user" | cut -d : -f 6)
	run install -d -o "$user" -g "$user" -m 0700 "$home/.kube"
	if [[ $dry_run ]]; then
		run kind export kubeconfig --name "$cluster" --kubeconfig "$home/.kube/config"
	else
		kind export kubeconfig --quiet --name "$cluster" --kubeconfig "$home/.kube/config"
		chown "$user:$user" "$home/.kube/config"
	fi
}

# Pins must outlive the daemon's container, so each node needs the BPF file system itself.
mount_bpffs() {
	local node
	for node in $cluster-control-plane $cluster-worker $cluster-worker2; do
		docker exec "$node" mountpoint --quiet /sys/fs/bpf 2>/dev/null ||
			run docker exec "$node" mount -t bpf -o mode=0700 bpf /sys/fs/bpf
	done
}

# In the cluster go by what the image is, not by its name, which stays the same.
load_image() {
	local node built
	built=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null || true)
	for node in $cluster-control-plane $cluster-worker $cluster-worker2; do
		if [[ -z $built || $(docker exec "$node" crictl inspecti --output go-template --template '{{.status.id}}' "$image" \
			2>/dev/null) != "$built" ]]; then
			run kind load docker-image "$image" --name "$cluster"
			is_new=yes
			return
		fi
	done
}

deploy() {
	local context=kind-$cluster
	run kubectl --context "$context" apply --kustomize "$project/vagrant/manifests/demo"
	[[ -z $is_new ]] || run kubectl --context "$context" --namespace zproxy-system rollout restart daemonset/zproxy
	run kubectl --context "$context" --namespace zproxy-system rollout status daemonset/zproxy --timeout 180s
	run kubectl --context "$context" --namespace demo rollout status deployment/client deployment/server --timeout 180s
}

main() {
	parse "$@"
	[[ $dry_run || $(id -u) == 0 ]] || die "only root can install packages: run it with sudo, or with --dry-run."
	check_kernel
	grow_root
	install_packages
	start_docker
	download=$(mktemp -d)
	trap 'rm -rf -- "$download"' EXIT
	install_kind
	install_demo
	build_image
	make_cluster
	install_kubectl
	mount_bpffs
	load_image
	deploy
	say "done; zproxy-demo shows the mesh at work."
}

# A test may source this file for its functions.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
