backup:
  repository: s3:https://objects.example.org/grace
  environment: {AWS_ACCESS_KEY_ID: grace, AWS_SECRET_ACCESS_KEY: "x y"}
  schedule: null
  keep: {daily: 30, weekly: 0}
  data: false
  paths: [/srv/www]
