#!/bin/bash
# Creates what docker-compose.yml needs in addition to the files of `roster init`: a certificate authority with
# certificates for NATS and MongoDB, and the passwords of MongoDB.
#
#   certificates.sh FOLDER     the FOLDER of `roster init --dir FOLDER`
#
# Idempotent: existing files stay. A certificate that expires soon is renewed; the server reads it at its
# next start.
set -euo pipefail
umask 077
cd "$1"

authority_days=3650
certificate_days=730
renew_before_s=$((60 * 24 * 3600))

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Only the operator gets the key of the authority; all services get its certificate.
mkdir -p operator/authority mongod
if [ ! -e operator/authority/ca.pem ]; then
    cat > "$scratch/ca.cnf" <<EOF
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = Roster
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
EOF
    openssl ecparam -name prime256v1 -genkey -noout -out operator/authority/ca.key
    openssl req -x509 -new -key operator/authority/ca.key -days "$authority_days" -sha256 \
        -config "$scratch/ca.cnf" -out "$scratch/ca.pem"
    mv "$scratch/ca.pem" operator/authority/ca.pem
fi
# Peer services: `roster init --service` created a folder for each.
services=()
for folder in *-service; do
    [ ! -d "$folder" ] || services+=("$folder")
done
for folder in operator command-api query-api projector reactor nats mongod "${services[@]}"; do
    cp operator/authority/ca.pem "$folder/ca.pem.new"
    mv "$folder/ca.pem.new" "$folder/ca.pem"
done

# certificate HOST: writes certificate and key to HOST/server.pem. Both servers are also clients of
# themselves, and the health checks use the loopback.
certificate() {
    local host=$1
    if openssl x509 -in "$host/server.pem" -noout -checkend "$renew_before_s" > /dev/null 2>&1; then
        return
    fi
    cat > "$scratch/$host.cnf" <<EOF
[req]
distinguished_name = name
prompt = no
[name]
CN = $host
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:$host, DNS:localhost, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
EOF
    openssl ecparam -name prime256v1 -genkey -noout -out "$scratch/$host.key"
    openssl req -new -key "$scratch/$host.key" -config "$scratch/$host.cnf" -out "$scratch/$host.csr"
    openssl x509 -req -in "$scratch/$host.csr" -sha256 -days "$certificate_days" \
        -CA operator/authority/ca.pem -CAkey operator/authority/ca.key \
        -set_serial "0x$(openssl rand -hex 16)" \
        -extfile "$scratch/$host.cnf" -extensions extensions -out "$scratch/$host.crt" 2> /dev/null
    cat "$scratch/$host.crt" "$scratch/$host.key" > "$host/server.pem.new"
    mv "$host/server.pem.new" "$host/server.pem"
    echo "created a certificate for $host"
}
certificate nats
certificate mongod

# secret FILE BYTES: random bytes in hex, which need no escaping anywhere.
secret() {
    if [ ! -e "$1" ]; then
        openssl rand -hex "$2" > "$1.new"
        mv "$1.new" "$1"
    fi
}
# The members of a replica set authenticate with this key; without it, authentication is off.
secret mongod/keyfile 256
for user in root projector query-api "${services[@]}"; do
    secret "mongod/$user.password" 32
done
# The connection string contains the password, so it is in a file and not in a variable.
for user in projector query-api "${services[@]}"; do
    cat > "$user/settings.toml.new" <<EOF
[mongodb]
url = "mongodb://$user:$(cat "mongod/$user.password")@mongod:27017/?replicaSet=rs0&authSource=admin&tls=true&tlsCAFile=/secrets/ca.pem"
EOF
    mv "$user/settings.toml.new" "$user/settings.toml"
done
