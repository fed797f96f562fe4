// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Hand the original destination from the client's socket to the one that the proxy accepts.
 *
 * TCP_CONNECT_CB runs when the source port is chosen and before the SYN leaves, so the entry is there before
 * anyone can look for it. PASSIVE_ESTABLISHED_CB runs before accept() can return the socket; it moves the
 * entry into that socket's own storage, where nothing evicts it.
 *
 * Like the connect programs this one may be attached twice above a socket; the second run finds its work
 * done.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/maps.h"
#include "lib/ops.h"

static __always_inline void zp_on_connect(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct zp_tuple_key key = {};
	struct zp_client *client;
	struct zp_origin orig;
	struct zp_conn *conn;
	u64 cookie;

	if (!sk)
		return;
	client = zp_sock.sk_storage_get(sk, 0, 0);
	if (!client || !client->is_dialling || client->via_port != zp_remote_port(ctx))
		return;
	client->is_dialling = 0;
	key.netns = bpf_get_netns_cookie(ctx);
	zp_local_ip(ctx, key.flow.src_ip);
	zp_remote_ip(ctx, key.flow.dst_ip);
	key.flow.src_port = ctx->local_port;
	key.flow.dst_port = client->via_port;
	orig = client->orig;
	if (zp_tuple.update(&key, &orig))
		zp_count(ZP_MAP_FULL);
	cookie = client->cookie;
	conn = zp_conn.lookup(&cookie);
	if (conn) {
		zp_copy_ip(conn->src_ip, key.flow.src_ip);
		conn->src_port = key.flow.src_port;
	}
}

static __always_inline void zp_on_accept(struct bpf_sock_ops *ctx)
{
	u64 netns = bpf_get_netns_cookie(ctx);
	struct zp_pod *pod = zp_pods.lookup(&netns);
	struct zp_tuple_key key = {.netns = netns};
	struct zp_origin *found, orig;
	struct bpf_sock *sk;

	if (!pod || pod->outbound_port != ctx->local_port)
		return;
	sk = ctx->sk;
	if (!sk)
		return;
	zp_remote_ip(ctx, key.flow.src_ip);
	zp_local_ip(ctx, key.flow.dst_ip);
	key.flow.src_port = zp_remote_port(ctx);
	key.flow.dst_port = ctx->local_port;
	found = zp_tuple.lookup(&key);
	if (!found) {
		if (!zp_orig.sk_storage_get(sk, 0, 0))
			zp_count(ZP_HANDOVER_MISSING);
		return;
	}
	orig = *found;
	zp_count(zp_orig.sk_storage_get(sk, &orig, BPF_SK_STORAGE_GET_F_CREATE) ? ZP_HANDED_OVER
										: ZP_MAP_FULL);
	zp_tuple.delete(&key);
}

int zp_sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		zp_on_connect(ctx);
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		zp_on_accept(ctx);
	return ZP_CG_OK;
}
