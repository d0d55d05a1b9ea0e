#!/bin/bash
# EC2 user data (Amazon Linux 2023): a read-only replica at localhost:5000 on every instance that starts.
# The instance profile needs deploy/aws/iam-reader.json and nothing else; give it an S3 gateway endpoint in the VPC,
# or every pull is paid for as NAT traffic. Fill in the three names, and host the image where the fleet can reach it.
set -euo pipefail
BUCKET=my-images
REGION=eu-central-1
IMAGE=123456789012.dkr.ecr.eu-central-1.amazonaws.com/moorage:1

dnf install -y docker
systemctl enable --now docker
[[ $IMAGE == *.dkr.ecr.*.amazonaws.com/* ]] &&
  aws ecr get-login-password --region "$REGION" | docker login --username AWS --password-stdin "${IMAGE%%/*}"

install -d /etc/moorage
cat > /etc/moorage/environment <<EOF
REGISTRY_HTTP_ADDR=localhost:5000
REGISTRY_STORAGE=s3
REGISTRY_STORAGE_S3_REGION=$REGION
REGISTRY_STORAGE_S3_BUCKET=$BUCKET
REGISTRY_STORAGE_MAINTENANCE_READONLY={"enabled": true}
EOF

cat > /etc/systemd/system/moorage.service <<EOF
[Unit]
Description=Moorage, the container registry at localhost:5000
After=docker.service
Requires=docker.service

[Service]
ExecStartPre=-/usr/bin/docker rm --force moorage
# --user: by itself the image leaves root for this user; without any capability it could not
ExecStart=/usr/bin/docker run --rm --name moorage --network host --user 10001:10001 --cap-drop ALL \\
  --security-opt no-new-privileges --read-only --memory 512m --env-file /etc/moorage/environment $IMAGE
ExecStop=/usr/bin/docker stop --time 40 moorage
TimeoutStopSec=60
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
EOF

systemctl daemon-reload
systemctl enable --now moorage
