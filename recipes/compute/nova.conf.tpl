# Rendered by Koguma at boot from this node's addresses and its flavor's variables.
[DEFAULT]
host = {{ node }}
my_ip = {{ address }}
state_path = /var/lib/nova
{% if variables.get("transport_url") %}transport_url = {{ variables.transport_url }}
{% endif %}
[vnc]
server_listen = {{ address }}
server_proxyclient_address = {{ address }}

[libvirt]
virt_type = {{ variables.get("virt_type", "kvm") }}
