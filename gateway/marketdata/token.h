/* Entitlement tokens: a SoupBinTCP user name and password that say and prove who may have what until when, checked offline.
 *
 *   user      0 entitlements (bits FEED_FULL, FEED_DERIVED, FEED_DEFINITIONS, FEED_SNAPSHOTS)   1..5 subscriber number
 *   password  0..2 last valid day (since 1970-01-01, UTC)                                      3..9 proof
 *
 * Every character is five bits of the alphabet A-Z 2-7, high bits first; upper and lower case are the same. The proof is the
 * first 35 bits of HMAC-SHA256(key, "bullring feed token" user day) over the upper-case characters: to be guessed one login at a
 * time, and a wrong one costs its address one of a few a minute. */
#ifndef BULLRING_TOKEN_H
#define BULLRING_TOKEN_H

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "gateway/clients/c/bullring_sha256.h"
#include "transport.h"

#define TOKEN_PURPOSE "bullring feed token"
#define TOKEN_PURPOSE_SIZE (sizeof(TOKEN_PURPOSE) - 1)
#define TOKEN_DAY_SIZE 3
#define TOKEN_PROOF_SIZE (SOUP_PASSWORD_SIZE - TOKEN_DAY_SIZE)
#define SECONDS_A_DAY 86400

static inline int token_digit(uint8_t character)
{
    int upper = toupper(character);
    if (upper >= 'A' && upper <= 'Z')
        return upper - 'A';
    return upper >= '2' && upper <= '7' ? upper - '2' + 26 : -1;
}

/* -1 if a character is none of the alphabet. */
static inline int64_t token_number(const uint8_t *characters, int count)
{
    int64_t number = 0;
    for (int i = 0; i < count; i++) {
        int digit = token_digit(characters[i]);
        if (digit < 0)
            return -1;
        number = number << 5 | digit;
    }
    return number;
}

/* Is it good at `now_s`? Then `entitlements` says for what. */
static inline bool token_check(const uint8_t key[32], const uint8_t user[SOUP_USER_SIZE],
                               const uint8_t password[SOUP_PASSWORD_SIZE], uint64_t now_s, int *entitlements)
{
    uint8_t message[TOKEN_PURPOSE_SIZE + SOUP_USER_SIZE + TOKEN_DAY_SIZE], digest[32];
    int64_t subscriber = token_number(user, SOUP_USER_SIZE), day = token_number(password, TOKEN_DAY_SIZE);
    int64_t proof = token_number(password + TOKEN_DAY_SIZE, TOKEN_PROOF_SIZE), real = 0;

    if (subscriber < 0 || day < 0 || proof < 0)
        return false;
    memcpy(message, TOKEN_PURPOSE, TOKEN_PURPOSE_SIZE);
    for (int i = 0; i < SOUP_USER_SIZE; i++)
        message[TOKEN_PURPOSE_SIZE + i] = (uint8_t)toupper(user[i]);
    for (int i = 0; i < TOKEN_DAY_SIZE; i++)
        message[TOKEN_PURPOSE_SIZE + SOUP_USER_SIZE + i] = (uint8_t)toupper(password[i]);
    bullring_hmac_sha256(key, message, sizeof(message), digest);
    for (int i = 0; i < 5; i++)
        real = real << 8 | digest[i];
    *entitlements = token_digit(user[0]);
    /* Both parts are looked at whatever the first one says; 64-bit numbers compare in one step. */
    return (((proof ^ real >> 5) != 0) | ((uint64_t)day < now_s / SECONDS_A_DAY)) == 0;
}

#endif
