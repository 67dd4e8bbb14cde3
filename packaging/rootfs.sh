#!/bin/sh
# rootfs.sh BINARY DIRECTORY : makes DIRECTORY a root file system that holds larder, what it is linked with, the system's certificate
# authorities, and nothing else: no shell, no package manager. Used by the Containerfile.
set -eu

binary=$1
root=$2
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/etc/larder" "$root/var/lib/larder"
cp "$binary" "$root/usr/bin/larder"
chmod 0755 "$root/usr/bin/larder"

# The libraries under the names by which the loader looks for them, and the loader itself.
ldd "$binary" | grep -oE '/[^ ]+' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'larder:x:65532:65532:larder:/var/lib/larder:/' >"$root/etc/passwd"
echo 'larder:x:65532:' >"$root/etc/group"
# A new volume takes over the owner and mode of the folder that it is mounted on.
chown -R 65532:65532 "$root/var/lib/larder"
chmod 0700 "$root/var/lib/larder"
