groups: {}
accounts: {physics: {}}
qos: {}
users:
  ada: {uid: 20001, full_name: Ada Lovelace, accounts: [physics]}
