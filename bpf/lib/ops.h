/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A socket's addresses as sock_ops programs see them, in the 16-byte form. */
#ifndef ZP_OPS_H
#define ZP_OPS_H

#include "abi.h"
#include "addr.h"
#include "types.h"

#define ZP_CG_OK 1

static __always_inline void zp_local_ip(struct bpf_sock_ops *ctx, u8 *ip)
{
	if (ctx->family == ZP_AF_INET) {
		zp_set_ip4(ip, ctx->local_ip4);
		zp_barrier();
		return;
	}
	zp_word(ip, 0) = ctx->local_ip6[0];
	zp_barrier();
	zp_word(ip, 1) = ctx->local_ip6[1];
	zp_barrier();
	zp_word(ip, 2) = ctx->local_ip6[2];
	zp_barrier();
	zp_word(ip, 3) = ctx->local_ip6[3];
}

static __always_inline void zp_remote_ip(struct bpf_sock_ops *ctx, u8 *ip)
{
	if (ctx->family == ZP_AF_INET) {
		zp_set_ip4(ip, ctx->remote_ip4);
		zp_barrier();
		return;
	}
	zp_word(ip, 0) = ctx->remote_ip6[0];
	zp_barrier();
	zp_word(ip, 1) = ctx->remote_ip6[1];
	zp_barrier();
	zp_word(ip, 2) = ctx->remote_ip6[2];
	zp_barrier();
	zp_word(ip, 3) = ctx->remote_ip6[3];
}

/* The field is in network order and 32 bits wide. */
static __always_inline u16 zp_remote_port(struct bpf_sock_ops *ctx)
{
	return (u16)zp_htonl(ctx->remote_port);
}

#endif
