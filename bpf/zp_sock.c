// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Outbound: a pod's TCP connect() goes to the proxy's listener on the pod's own address, and getpeername()
 * answers with what the app dialled.
 *
 * Attached at the cgroup root, so that a process which came into the pod's namespace by nsenter is steered
 * like the pod's own; the netns cookie decides. These programs see every connect() of the machine: a
 * connection that is none of our pods' costs one hash miss.
 *
 * The destination is podIP:15001, never 127.0.0.1: source address, SO_BINDTODEVICE and sockets bound to the
 * pod's address keep working. With a second daemon on the machine its programs run too; whoever is second
 * finds the pod's own address and passes.
 *
 * Where the pod has a cgroup of its own the same programs are attached there too, and run before anything at
 * the root: somebody else's load balancer at the root does not get to see a service address, we do. Then a
 * process of the pod comes here twice in one connect(), and the second time changes and counts nothing.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/dns.h"
#include "lib/heart.h"
#include "lib/maps.h"

#define ZP_REJECT  0
#define ZP_PROCEED 1

/* A worker's verdict: steer to the filled zp_client, leave alone, or refuse. */
#define ZP_STEER  1
#define ZP_LEAVE  0
#define ZP_REFUSE -1

static __always_inline int zp_is_tcp(struct bpf_sock_addr *ctx)
{
	return ctx->type == ZP_SOCK_STREAM && (ctx->protocol == ZP_TCP || ctx->protocol == ZP_MPTCP);
}

/* A datagram socket that dials or asks a resolver. */
static __always_inline int zp_is_dns(struct bpf_sock_addr *ctx)
{
	return ctx->type == ZP_SOCK_DGRAM && ctx->protocol == ZP_UDP &&
	       ctx->user_port == zp_htons(ZP_DNS_PORT);
}

/* Count a steered socket as open, once however often it dials, and say so when the pod has few source ports
 * left: all its connections have one destination, so the range is all that there is.
 */
static __always_inline void zp_opened(u64 netns, struct zp_client *client, struct zp_client *before)
{
	struct zp_podstat *stat = zp_stat_of(netns);

	if (!stat)
		return;
	client->epoch = stat->epoch;
	__sync_fetch_and_add(&stat->opened, 1);
	if (!before || before->epoch != stat->epoch)
		__sync_fetch_and_add(&stat->open, 1);
	if (stat->ports && stat->open > stat->ports - stat->ports / 10)
		zp_count(ZP_PORTS_SCARCE);
}

/* Undo `zp_opened`, once, unless the pod was enrolled anew since: then the socket was never counted. */
static __always_inline void zp_closed(struct zp_client *client)
{
	struct zp_podstat *stat = zp_stat_of(client->netns);
	u64 cookie = client->cookie;

	if (!cookie)
		return;
	client->cookie = 0;
	if (stat && stat->epoch == client->epoch)
		__sync_fetch_and_add(&stat->open, -1);
	zp_conn.delete(&cookie);
}

/* A socket that was steered once may be dissolved (AF_UNSPEC) and dial something exempt. */
static __always_inline void zp_forget(struct bpf_sock *sk)
{
	struct zp_client *client = zp_sock.sk_storage_get(sk, 0, 0);

	if (!client)
		return;
	zp_closed(client);
	zp_sock.sk_storage_delete(sk);
}

/* An app's MPTCP socket is not the one that connects: the kernel opens a TCP socket below it. What the app
 * asks later (getpeername, close) concerns the upper one.
 */
static __always_inline void zp_remember_upper(struct bpf_sock *sk, struct zp_client *client)
{
#ifdef ZP_HAS_MPTCP
	struct zp_client *kept;
	void *upper = bpf_skc_to_mptcp_sock(sk);

	if (!upper)
		return;
	kept = zp_sock.sk_storage_get(upper, client, BPF_SK_STORAGE_GET_F_CREATE);
	if (kept)
		*kept = *client;
#endif
}

/* A lost entry is counted and the connection still steered: the proxy resets what has no original
 * destination, whereas letting it pass would send it in the clear.
 */
static __always_inline void zp_remember(struct bpf_sock *sk, u64 netns, struct zp_client *client)
{
	struct zp_conn conn = {
	    .netns = netns,
	    .started_ns = bpf_ktime_get_ns(),
	    .orig_port = client->orig.port,
	    .family = client->orig.family,
	};
	u64 cookie = client->cookie;
	struct zp_client *kept;

	client->netns = netns;
	zp_opened(netns, client, zp_sock.sk_storage_get(sk, 0, 0));
	kept = zp_sock.sk_storage_get(sk, client, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept) {
		zp_closed(client); /* nothing would at its end */
		zp_count(ZP_MAP_FULL);
		return;
	}
	*kept = *client; /* CREATE leaves the entry of an earlier connect() as it is */
	zp_remember_upper(sk, client);
	zp_copy_ip(conn.orig_ip, client->orig.ip);
	if (zp_conn.update(&cookie, &conn))
		zp_count(ZP_MAP_FULL);
}

/* Whether the destination is where we sent this very connect() a moment ago: the program at the pod's cgroup
 * was here before the one at the root. A socket that was steered earlier is no longer dialling.
 */
static __always_inline int zp_is_steered(struct bpf_sock *sk, struct zp_client *client)
{
	struct zp_client *before = zp_sock.sk_storage_get(sk, 0, 0);

	return before && before->is_dialling && before->via_port == client->orig.port &&
	       zp_word(before->via.ip, 0) == zp_word(client->orig.ip, 0) &&
	       zp_word(before->via.ip, 1) == zp_word(client->orig.ip, 1) &&
	       zp_word(before->via.ip, 2) == zp_word(client->orig.ip, 2) &&
	       zp_word(before->via.ip, 3) == zp_word(client->orig.ip, 3);
}

/* Count a decision that the second program of the same connect() will come to as well. Both run on one CPU,
 * so the socket of the last decision is the note; it serves this count ONLY, since a process from outside the
 * pod's cgroup runs one program and leaves its note behind.
 */
static __always_inline int zp_count_once(struct bpf_sock_addr *ctx, struct zp_pod *pod, u32 reason)
{
	u64 cookie = bpf_get_socket_cookie(ctx), *turn;
	u32 zero = 0;

	if (pod->flags & ZP_POD_TWICE) {
		turn = zp_turn.lookup(&zero);
		if (turn && *turn == cookie) {
			*turn = 0;
			return 0;
		}
		if (turn)
			*turn = cookie;
	}
	zp_count(reason);
	return 1;
}

static __always_inline u32 zp_exemption(struct bpf_sock *sk, u64 netns, struct zp_client *client)
{
	struct zp_podip *own;
	struct zp_ip dst;
	u32 reason;

	if (zp_exempt.sk_storage_get(sk, 0, 0))
		return ZP_EXEMPT_SELF;
	reason =
	    client->orig.family == ZP_AF_INET ? zp_exempt4(client->orig.ip) : zp_exempt6(client->orig.ip);
	if (reason)
		return reason;
	zp_copy_ip(dst.ip, client->orig.ip);
	own = zp_podip.lookup(&dst);
	return own && own->netns == netns ? ZP_EXEMPT_OWN_IP : 0;
}

/* Fill in where the pod's connections of this family go; 0 when the pod has no address of it. */
static __always_inline int zp_set_via(struct zp_pod *pod, struct zp_client *client)
{
	client->via_port =
	    client->orig.port == ZP_DNS_PORT && pod->flags & ZP_POD_DNS ? pod->dns_port : pod->outbound_port;
	if (client->orig.family == ZP_AF_INET) {
		zp_set_ip4(client->via.ip, zp_word(pod->ip4, 0));
		return pod->flags & ZP_POD_IP4;
	}
	zp_copy_ip(client->via.ip, pod->ip6);
	return pod->flags & ZP_POD_IP6;
}

static __always_inline int __sock_steer_fwd(struct bpf_sock_addr *ctx, struct zp_client *client)
{
	u64 netns = bpf_get_netns_cookie(ctx);
	struct zp_pod *pod = zp_pods.lookup(&netns);
	struct bpf_sock *sk;
	u32 reason;

	if (!pod)
		return ZP_LEAVE;
	sk = ctx->sk;
	if (!sk)
		return ZP_REFUSE;
	client->orig.port = zp_ntohs((__be16)ctx->user_port);
	client->orig.family = zp_is_ip4(client->orig.ip) ? ZP_AF_INET : ZP_AF_INET6;
	if (zp_is_steered(sk, client))
		return ZP_LEAVE;
	reason = zp_exemption(sk, netns, client);
	if (reason) {
		zp_count_once(ctx, pod, reason);
		zp_forget(sk);
		return ZP_LEAVE;
	}
	if (zp_is_abandoned(pod)) {
		zp_count(ZP_FAIL_OPEN_OUT);
		zp_forget(sk);
		return ZP_LEAVE;
	}
	if (!zp_set_via(pod, client)) {
		/* Without an address nothing could listen; letting it out would be in the clear. */
		if (zp_count_once(ctx, pod, ZP_REFUSED_NO_FAMILY))
			zp_tally(netns, refused, 1);
		bpf_set_retval(-ZP_ENETUNREACH);
		return ZP_REFUSE;
	}
	client->is_dialling = 1;
	client->cookie = bpf_get_socket_cookie(ctx);
	zp_remember(sk, netns, client);
	zp_count(client->orig.family == ZP_AF_INET ? ZP_CAPTURED_V4 : ZP_CAPTURED_V6);
	return ZP_STEER;
}

/* A query, or the connect() of a socket that will send some: to the DNS listener, under the resolver's alias.
 */
static __always_inline int __sock_dns_fwd(struct bpf_sock_addr *ctx, struct zp_client *client)
{
	u64 netns = bpf_get_netns_cookie(ctx);
	struct zp_pod *pod = zp_pods.lookup(&netns);
	struct bpf_sock *sk;

	if (!pod || !(pod->flags & ZP_POD_DNS))
		return ZP_LEAVE;
	sk = ctx->sk;
	if (!sk)
		return ZP_REFUSE;
	client->orig.port = ZP_DNS_PORT;
	client->orig.family = zp_is_ip4(client->orig.ip) ? ZP_AF_INET : ZP_AF_INET6;
	if (zp_exemption(sk, netns, client) || zp_is_abandoned(pod))
		return ZP_LEAVE;
	/* Without an address of the family its aliases are not local, and the query would go out. */
	if (!(pod->flags & (client->orig.family == ZP_AF_INET ? ZP_POD_IP4 : ZP_POD_IP6)) ||
	    !zp_take_alias(netns, &client->orig, client->via.ip)) {
		zp_count(ZP_DNS_REFUSED);
		bpf_set_retval(-ZP_ECONNREFUSED);
		return ZP_REFUSE;
	}
	client->via_port = pod->dns_port;
	zp_count(ZP_DNS_CAPTURED);
	zp_tally(netns, dns, 1);
	return ZP_STEER;
}

/* The same for connect(), which getpeername() will be asked about. */
static __always_inline int __sock_dns_dial(struct bpf_sock_addr *ctx, struct zp_client *client)
{
	int verdict = __sock_dns_fwd(ctx, client);
	struct bpf_sock *sk = ctx->sk;
	struct zp_client *kept;

	if (verdict != ZP_STEER || !sk)
		return verdict;
	kept = zp_sock.sk_storage_get(sk, client, BPF_SK_STORAGE_GET_F_CREATE);
	if (kept)
		*kept = *client;
	return verdict;
}

static __always_inline int zp_dial(struct bpf_sock_addr *ctx, struct zp_client *client)
{
	if (zp_is_tcp(ctx))
		return __sock_steer_fwd(ctx, client);
	return zp_is_dns(ctx) ? __sock_dns_dial(ctx, client) : ZP_LEAVE;
}

static __always_inline int zp_is_dialled(struct bpf_sock_addr *ctx)
{
	return zp_is_tcp(ctx) || zp_is_dns(ctx);
}

static __always_inline void zp_put_ip4(struct bpf_sock_addr *ctx, const u8 *ip, u16 port)
{
	ctx->user_ip4 = zp_word(ip, 3);
	zp_barrier();
	ctx->user_port = zp_htons(port);
}

static __always_inline void zp_get_ip6(struct bpf_sock_addr *ctx, u8 *ip)
{
	zp_word(ip, 0) = ctx->user_ip6[0];
	zp_word(ip, 1) = ctx->user_ip6[1];
	zp_word(ip, 2) = ctx->user_ip6[2];
	zp_word(ip, 3) = ctx->user_ip6[3];
}

static __always_inline void zp_put_ip6(struct bpf_sock_addr *ctx, const u8 *ip, u16 port)
{
	ctx->user_ip6[0] = zp_word(ip, 0);
	zp_barrier();
	ctx->user_ip6[1] = zp_word(ip, 1);
	zp_barrier();
	ctx->user_ip6[2] = zp_word(ip, 2);
	zp_barrier();
	ctx->user_ip6[3] = zp_word(ip, 3);
	zp_barrier();
	ctx->user_port = zp_htons(port);
}

/* Carry out a verdict, and return what the hook is to return. */
static __always_inline int zp_obey4(struct bpf_sock_addr *ctx, struct zp_client *client, int verdict)
{
	if (verdict == ZP_STEER)
		zp_put_ip4(ctx, client->via.ip, client->via_port);
	return verdict == ZP_REFUSE ? ZP_REJECT : ZP_PROCEED;
}

static __always_inline int zp_obey6(struct bpf_sock_addr *ctx, struct zp_client *client, int verdict)
{
	if (verdict == ZP_STEER)
		zp_put_ip6(ctx, client->via.ip, client->via_port);
	return verdict == ZP_REFUSE ? ZP_REJECT : ZP_PROCEED;
}

int zp_connect4(struct bpf_sock_addr *ctx)
{
	struct zp_client client = {};

	if (!zp_is_dialled(ctx))
		return ZP_PROCEED;
	zp_set_ip4(client.orig.ip, ctx->user_ip4);
	return zp_obey4(ctx, &client, zp_dial(ctx, &client));
}

/* An IPv6 socket that dials ::ffff:a.b.c.d comes here, not to connect4; the 16-byte form makes it IPv4. */
int zp_connect6(struct bpf_sock_addr *ctx)
{
	struct zp_client client = {};

	if (!zp_is_dialled(ctx))
		return ZP_PROCEED;
	zp_get_ip6(ctx, client.orig.ip);
	return zp_obey6(ctx, &client, zp_dial(ctx, &client));
}

/* Return the socket's entry when the peer that is about to be shown is where we sent it. The hook also runs
 * in accept(), and on sockets that were steered once and now talk to something else: both keep their real
 * peer.
 */
static __always_inline struct zp_client *__sock_steer_rev(struct bpf_sock_addr *ctx, const u8 *shown)
{
	struct bpf_sock *sk = ctx->sk;
	struct zp_client *client;

	if (!sk)
		return 0;
	client = zp_sock.sk_storage_get(sk, 0, 0);
	if (!client || client->via_port != zp_ntohs((__be16)ctx->user_port))
		return 0;
	return zp_is_same_ip(client->via.ip, shown) ? client : 0;
}

int zp_getpeername4(struct bpf_sock_addr *ctx)
{
	struct zp_client *client;
	struct zp_ip shown;

	zp_set_ip4(shown.ip, ctx->user_ip4);
	client = __sock_steer_rev(ctx, shown.ip);
	if (client)
		zp_put_ip4(ctx, client->orig.ip, client->orig.port);
	return ZP_PROCEED;
}

int zp_getpeername6(struct bpf_sock_addr *ctx)
{
	struct zp_client *client;
	struct zp_ip shown;

	zp_get_ip6(ctx, shown.ip);
	client = __sock_steer_rev(ctx, shown.ip);
	if (client)
		zp_put_ip6(ctx, client->orig.ip, client->orig.port);
	return ZP_PROCEED;
}

/* Runs for every socket of the machine; only steered ones have storage. */
int zp_sock_release(struct bpf_sock *ctx)
{
	struct zp_client *client = zp_sock.sk_storage_get(ctx, 0, 0);

	if (client)
		zp_closed(client);
	return ZP_PROCEED;
}
