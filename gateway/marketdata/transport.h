/* The two transports on the wire, both Nasdaq's and unmodified; all numbers big-endian.
 *
 *   MoldUDP64 1.00, downstream packet          request packet            SoupBinTCP 3.00
 *    0 char[10] session                         0 char[10] session        0 u16 length of what follows
 *   10 u64 number of the first message         10 u64 first number        2 char type
 *   18 u16 messages (0 heartbeat, 0xFFFF end)  18 u16 messages            3 payload
 *   20 messages: u16 length, bytes
 *
 *   Soup types, server: + debug, A accepted (session[10], number[20]), J rejected (A or S), S sequenced, H heartbeat, Z end
 *               client: + debug, L login (user[6], password[10], session[10], number[20]), U unsequenced, R heartbeat, O logout */
#ifndef BULLRING_TRANSPORT_H
#define BULLRING_TRANSPORT_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define SESSION_SIZE 10
#define MOLD_HEADER_SIZE 20
#define MOLD_REQUEST_SIZE 20
#define MOLD_END_OF_SESSION 0xffffu
#define MOLD_MESSAGES_MAX 0xfffeu
#define MOLD_LENGTH_SIZE 2

#define SOUP_HEADER_SIZE 3
#define SOUP_USER_SIZE 6
#define SOUP_PASSWORD_SIZE 10
#define SOUP_NUMBER_SIZE 20
#define SOUP_LOGIN_SIZE (SOUP_USER_SIZE + SOUP_PASSWORD_SIZE + SESSION_SIZE + SOUP_NUMBER_SIZE)
#define SOUP_ACCEPTED_SIZE (SESSION_SIZE + SOUP_NUMBER_SIZE)

static inline void put_be16(uint8_t *to, uint16_t value)
{
    value = htobe16(value);
    memcpy(to, &value, sizeof(value));
}

static inline void put_be64(uint8_t *to, uint64_t value)
{
    value = htobe64(value);
    memcpy(to, &value, sizeof(value));
}

static inline uint16_t get_be16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof(value));
    return be16toh(value);
}

static inline uint64_t get_be64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return be64toh(value);
}

static inline void mold_header(uint8_t *packet, const char *session, uint64_t number, uint16_t count)
{
    memcpy(packet, session, SESSION_SIZE);
    put_be64(packet + 10, number);
    put_be16(packet + 18, count);
}

/* Length and type of a Soup packet with `payload` bytes behind. */
static inline void soup_header(uint8_t *to, uint8_t type, uint32_t payload)
{
    put_be16(to, (uint16_t)(payload + 1));
    to[2] = type;
}

#endif
