#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# First thing a host of the sandbox does: shed what docker put over its files, and take the network of its side.
set -eu
. /etc/onprem-sandbox/network.env
for file in /etc/resolv.conf /etc/hosts /etc/hostname; do
  umount "$file" 2>/dev/null || true
done
if [ ! -e /etc/onprem-sandbox/booted ]; then
  cp /etc/onprem-sandbox/resolv.conf /etc/resolv.conf
  cp /etc/onprem-sandbox/hosts /etc/hosts
  cp /etc/onprem-sandbox/hostname /etc/hostname
  touch /etc/onprem-sandbox/booted
fi
ip route flush default 2>/dev/null || true
if [ -n "$GATEWAY" ] && [ "$GATEWAY" != "$ADDRESS" ]; then
  ip route replace default via "$GATEWAY"
fi
