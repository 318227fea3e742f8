# What a minion gets whose claim is not what the pillar says. Here and not in top.sls: Salt keeps an error in a top file
# to itself, and that of a state file it reports.
{{ raise("Minion " ~ grains.id ~ " claims the roles " ~ grains.get("roles", []) ~ ", but the pillar gives it " ~ pillar.get("roles", [])
         ~ ". Name it in nodes.sls, or bootstrap it again: salt-ssh " ~ grains.id ~ " state.apply bootstrap.minion") }}
