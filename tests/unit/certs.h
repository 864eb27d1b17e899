/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Certificates for tests, made on the spot with any property wrong that a test
 * wants to be wrong. Failures are assertions.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <glib.h>
#include <stdbool.h>

/**
 * BfTestCertSpec: how a certificate shall be; all zero is a plain leaf
 * @country: (nullable): encoded first
 * @organization: (nullable): encoded second
 * @cn: (nullable): the common name, encoded last
 * @ca: basic constraints: 1 for CA:TRUE, -1 for CA:FALSE, 0 for none
 * @usage: keyUsage bits of gnutls, 0 for no such extension
 * @usage_critical: whether keyUsage is critical
 * @purpose: (nullable): OID for extendedKeyUsage
 * @purpose_critical: whether extendedKeyUsage is critical
 * @from_s: start of validity, seconds from now; 0 for an hour ago
 * @until_s: end of validity, seconds from now; 0 for in a day
 * @dns: up to 3 DNS names, ends with NULL
 * @ip: (nullable): an address
 * @rsa: an RSA key instead of one on P-256
 * @key: (nullable): the key to use instead of a new one; copied
 */
typedef struct BfTestCertSpec {
    const char *country;
    const char *organization;
    const char *cn;
    int ca;
    unsigned int usage;
    bool usage_critical;
    const char *purpose;
    bool purpose_critical;
    gint64 from_s;
    gint64 until_s;
    const char *dns[4];
    const char *ip;
    bool rsa;
    gnutls_x509_privkey_t key;
} BfTestCertSpec;

/**
 * BfTestCert: a certificate and its key
 */
typedef struct BfTestCert {
    gnutls_x509_crt_t crt;
    gnutls_x509_privkey_t key;
} BfTestCert;

/**
 * bf_test_cert_new:
 * @spec: what it shall be like
 * @issuer: (nullable): who signs it; NULL for itself
 *
 * Returns: (transfer full): a certificate with a new key (RSA keys are shared)
 */
BfTestCert *bf_test_cert_new(const BfTestCertSpec *spec,
                             const BfTestCert *issuer);

/**
 * bf_test_ca_new:
 * @cn: the common name
 * @issuer: (nullable): who signs it; NULL for itself
 *
 * Returns: (transfer full): a CA without faults
 */
BfTestCert *bf_test_ca_new(const char *cn, const BfTestCert *issuer);

/**
 * bf_test_cert_free:
 * @cert: (nullable) (transfer full): a certificate
 */
void bf_test_cert_free(BfTestCert *cert);

/**
 * bf_test_write:
 * @dir: a directory
 * @name: file name
 * @text: what to write
 */
void bf_test_write(const char *dir, const char *name, const char *text);

/**
 * bf_test_write_certs:
 * @dir: a directory
 * @name: file name
 * @first: the first certificate, then more, then NULL
 *
 * Writes certificates in PEM form.
 */
void bf_test_write_certs(const char *dir, const char *name,
                         const BfTestCert *first, ...) G_GNUC_NULL_TERMINATED;

/**
 * bf_test_write_key:
 * @dir: a directory
 * @name: file name
 * @cert: whose key
 */
void bf_test_write_key(const char *dir, const char *name,
                       const BfTestCert *cert);

/**
 * bf_test_write_crl:
 * @dir: a directory
 * @name: file name
 * @issuer: who revokes
 * @revoked: (nullable): what is revoked
 */
void bf_test_write_crl(const char *dir, const char *name,
                       const BfTestCert *issuer, const BfTestCert *revoked);

/**
 * bf_test_tmp_dir:
 *
 * Returns: (transfer full): path of a new directory
 */
char *bf_test_tmp_dir(void);

/**
 * bf_test_remove_dir:
 * @dir: (transfer full): path of a directory that holds only files
 */
void bf_test_remove_dir(char *dir);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfTestCert, bf_test_cert_free)
