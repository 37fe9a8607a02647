"""A process that takes addresses for nodes as fast as it can: `python address_process.py SEED PORT…`, row ids of ports.

It allocates, gives back and reserves in an order that the seed decides, and says `ADDRESS PORT` of what it was given.
"""

from __future__ import annotations

import random
import sys

import django


def main() -> None:
    django.setup()
    from koguma.db import addresses, catalog
    from koguma.db.models import AddressRow, NetworkRow, PortRow
    from koguma.errors import KogumaError
    from koguma.model.subnet import Reservation

    dice = random.Random(int(sys.argv[1]))
    network = NetworkRow.objects.get(name="provisioning")
    ports = list(PortRow.objects.filter(pk__in=[int(word) for word in sys.argv[2:]]))
    for _ in range(3):
        for port in dice.sample(ports, len(ports)):
            if not AddressRow.objects.filter(port=port).exists():
                given = addresses.allocate(network, port)
                sys.stdout.write(f"{given.address} {port.pk}\n")
            if dice.random() < 0.3:
                AddressRow.objects.filter(port=port).delete()
            if dice.random() < 0.1:
                try:
                    catalog.reserve("provisioning", Reservation(f"10.77.0.{dice.randrange(2, 200)}", "a test"))
                except KogumaError:
                    continue  # somebody has it
    for port in ports:
        if not AddressRow.objects.filter(port=port).exists():
            addresses.allocate(network, port)


if __name__ == "__main__":
    main()
