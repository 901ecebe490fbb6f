# SPDX-License-Identifier: GPL-3.0-or-later
"""The program inside the stand-in images: one for all services, standard library only."""
