/* Socket addresses and control messages, as far as the Windows Filtering Platform mentions them.
 *
 * Written for this project from public documentation; no Microsoft header was copied. */
#pragma once
#include "ntdef.h"

typedef USHORT ADDRESS_FAMILY;
typedef ULONG COMPARTMENT_ID;
typedef ULONG NET_IFINDEX, IF_INDEX;

#define AF_UNSPEC 0
#define AF_INET 2
#define AF_INET6 23

typedef enum {
    IPPROTO_ICMP = 1,
    IPPROTO_TCP = 6,
    IPPROTO_UDP = 17,
    IPPROTO_ICMPV6 = 58,
} IPPROTO;

typedef union _SCOPE_ID {
    ULONG Value; /* zone in the lower 28 bits, level in the upper 4 */
} SCOPE_ID;

typedef struct sockaddr {
    ADDRESS_FAMILY sa_family;
    CHAR sa_data[14];
} SOCKADDR;

typedef struct in6_addr {
    union {
        UCHAR Byte[16];
        USHORT Word[8]; /* network byte order; by them the address is aligned to 2 bytes */
    } u;
} IN6_ADDR;

typedef struct sockaddr_in {
    ADDRESS_FAMILY sin_family;
    USHORT sin_port;
    ULONG sin_addr; /* network byte order */
    CHAR sin_zero[8];
} SOCKADDR_IN;

typedef struct sockaddr_in6 {
    ADDRESS_FAMILY sin6_family;
    USHORT sin6_port;
    ULONG sin6_flowinfo;
    IN6_ADDR sin6_addr;
    ULONG sin6_scope_id;
} SOCKADDR_IN6;

typedef union _SOCKADDR_INET {
    SOCKADDR_IN Ipv4;
    SOCKADDR_IN6 Ipv6;
    ADDRESS_FAMILY si_family;
} SOCKADDR_INET;

typedef struct _IP_ADDRESS_PREFIX {
    SOCKADDR_INET Prefix;
    UINT8 PrefixLength;
} IP_ADDRESS_PREFIX;

typedef struct _WSACMSGHDR {
    SIZE_T cmsg_len;
    INT cmsg_level;
    INT cmsg_type;
} WSACMSGHDR;
