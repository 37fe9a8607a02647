# Rendered by Koguma at boot from {{ flavor }}'s template. Members: {{ members | map(attribute="name") | join(", ") }}
[DEFAULT]
host = {{ hostname }}
my_ip = {{ address }}
state_path = /var/lib/nova
compute_driver = libvirt.LibvirtDriver
transport_url = {{ variables.transport_url | default("rabbit://openstack@controller:5672/") }}

[libvirt]
virt_type = {{ variables.virt_type | default("kvm") }}
live_migration_uri = qemu+ssh://root@%s/system

[vnc]
server_listen = {{ address }}
server_proxyclient_address = {{ address }}
{% for member in members if member.name != node %}
# {{ member.name }} is reached at {{ member.address }} ({{ member.flavor }})
{%- endfor %}
