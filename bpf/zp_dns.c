// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* DNS over UDP: a pod's queries go to the DNS listener of its straw under the alias of the resolver that was
 * asked, and answers show that resolver. What connect() has to do with it is in zp_sock.c.
 */
#include "lib/dns.h"

int zp_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct zp_client client = {};

	if (!zp_is_dns(ctx))
		return ZP_PROCEED;
	zp_set_ip4(client.orig.ip, ctx->user_ip4);
	return zp_obey4(ctx, &client, __sock_dns_fwd(ctx, &client));
}

int zp_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct zp_client client = {};

	if (!zp_is_dns(ctx))
		return ZP_PROCEED;
	zp_get_ip6(ctx, client.orig.ip);
	return zp_obey6(ctx, &client, __sock_dns_fwd(ctx, &client));
}

/* Find the resolver that an answer's source stands for. Nobody but the pod itself can send from an alias: the
 * address is local, so the kernel drops what claims it from outside.
 */
static __always_inline struct zp_resolver *__sock_dns_rev(struct bpf_sock_addr *ctx, const u8 *source)
{
	struct zp_alias key = {.netns = bpf_get_netns_cookie(ctx)};
	struct zp_resolver *resolver;
	u64 netns = key.netns;

	if (!zp_pods.lookup(&netns))
		return 0;
	zp_copy_ip(key.ip, source);
	resolver = zp_resolver.lookup(&key);
	zp_count(resolver ? ZP_DNS_RESTORED : ZP_DNS_UNKNOWN);
	return resolver;
}

int zp_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct zp_resolver *resolver;
	struct zp_ip source;

	zp_set_ip4(source.ip, ctx->user_ip4);
	if (!zp_is_alias(source.ip))
		return ZP_PROCEED;
	resolver = __sock_dns_rev(ctx, source.ip);
	if (resolver)
		zp_put_ip4(ctx, resolver->orig.ip, resolver->orig.port);
	return ZP_PROCEED;
}

int zp_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct zp_resolver *resolver;
	struct zp_ip source;

	zp_get_ip6(ctx, source.ip);
	if (!zp_is_alias(source.ip))
		return ZP_PROCEED;
	resolver = __sock_dns_rev(ctx, source.ip);
	if (resolver)
		zp_put_ip6(ctx, resolver->orig.ip, resolver->orig.port);
	return ZP_PROCEED;
}
