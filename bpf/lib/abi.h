/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Numbers of the socket interface. The loader compiles without kernel headers, and libc's cannot be included
 * in a BPF program.
 */
#ifndef ZP_ABI_H
#define ZP_ABI_H

#define ZP_AF_INET	2
#define ZP_AF_INET6	10
#define ZP_SOCK_STREAM	1
#define ZP_SOCK_DGRAM	2
#define ZP_TCP		6
#define ZP_UDP		17
#define ZP_MPTCP	262
#define ZP_DNS_PORT	53
#define ZP_ENETUNREACH	101
#define ZP_ECONNREFUSED 111

#endif
