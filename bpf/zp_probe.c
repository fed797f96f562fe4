// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Probes: note the connections that kubelet begins to pods of this node, so that tc lets them pass.
 *
 * Attached at kubelet's own cgroup and nowhere else: who may be in there decides who may pass. A source
 * address would exempt every process of the node, and a mark whoever can set it. The flow is noted as the
 * socket has it, before its SYN leaves; where the node translates addresses on the way to its own pods the
 * pod sees another flow, and the probe is carried by the proxy like anybody's traffic.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/maps.h"
#include "lib/ops.h"

int zp_kubelet(struct bpf_sock_ops *ctx)
{
	struct zp_flow flow = {};
	struct zp_ip dst;
	u64 now;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return ZP_CG_OK;
	zp_remote_ip(ctx, dst.ip);
	if (!zp_podip.lookup(&dst))
		return ZP_CG_OK;
	zp_copy_ip(flow.dst_ip, dst.ip);
	zp_local_ip(ctx, flow.src_ip);
	flow.src_port = ctx->local_port;
	flow.dst_port = zp_remote_port(ctx);
	now = bpf_ktime_get_ns();
	if (zp_probe.update(&flow, &now))
		zp_count(ZP_MAP_FULL);
	return ZP_CG_OK;
}
