// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Hand the original destination from the client's socket to the one that the proxy accepts.
 *
 * TCP_CONNECT_CB runs when the source port is chosen and before the SYN leaves, so the entry is there before
 * anyone can look for it. PASSIVE_ESTABLISHED_CB runs before accept() can return the socket; it moves the
 * entry into that socket's own storage, where nothing evicts it. STATE_CB removes what nobody will accept.
 *
 * Like the connect programs this one may be attached twice above a socket; the second run finds its work
 * done.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/maps.h"
#include "lib/ops.h"

/* The key of a client's flow, and its storage; 0 when it is none that we steered. */
static __always_inline struct zp_client *zp_client_flow(struct bpf_sock_ops *ctx, struct zp_tuple_key *key)
{
	struct bpf_sock *sk = ctx->sk;
	struct zp_client *client;

	if (!sk)
		return 0;
	client = zp_sock.sk_storage_get(sk, 0, 0);
	if (!client || client->via_port != zp_remote_port(ctx))
		return 0;
	key->netns = bpf_get_netns_cookie(ctx);
	zp_local_ip(ctx, key->flow.src_ip);
	zp_remote_ip(ctx, key->flow.dst_ip);
	key->flow.src_port = ctx->local_port;
	key->flow.dst_port = client->via_port;
	return client;
}

static __always_inline void zp_on_connect(struct bpf_sock_ops *ctx)
{
	struct zp_tuple_key key = {};
	struct zp_client *client = zp_client_flow(ctx, &key);
	struct zp_origin orig;
	struct zp_conn *conn;
	u64 cookie;

	if (!client)
		return;
	if (!client->is_dialling)
		return;
	client->is_dialling = 0;
	orig = client->orig;
	if (zp_tuple.update(&key, &orig))
		zp_count(ZP_MAP_FULL);
	/* Others may have set flags of theirs, and the call replaces them all. */
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	cookie = client->cookie;
	conn = zp_conn.lookup(&cookie);
	if (conn) {
		zp_copy_ip(conn->src_ip, key.flow.src_ip);
		conn->src_port = key.flow.src_port;
	}
}

/* A connect that was refused or given up: nobody will accept it, and whoever has its source port next must
 * not be taken for it. The hook runs before the kernel frees the port, so the entry cannot be another's
 * already.
 */
static __always_inline void zp_on_state(struct bpf_sock_ops *ctx)
{
	struct zp_tuple_key key = {};

	if (ctx->args[0] == BPF_TCP_SYN_SENT && ctx->args[1] == BPF_TCP_CLOSE && zp_client_flow(ctx, &key))
		zp_tuple.delete(&key);
}

static __always_inline void zp_on_accept(struct bpf_sock_ops *ctx)
{
	u64 netns = bpf_get_netns_cookie(ctx);
	struct zp_pod *pod = zp_pods.lookup(&netns);
	struct zp_tuple_key key = {.netns = netns};
	struct zp_origin *found, orig;
	struct bpf_sock *sk;

	if (!pod)
		return;
	if (ctx->local_port != pod->outbound_port &&
	    (ctx->local_port != pod->dns_port || !(pod->flags & ZP_POD_DNS)))
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
	else if (ctx->op == BPF_SOCK_OPS_STATE_CB)
		zp_on_state(ctx);
	return ZP_CG_OK;
}
