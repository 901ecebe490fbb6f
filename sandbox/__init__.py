# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox: a connected network with a stand-in vendor, and a site network that is really cut off."""
