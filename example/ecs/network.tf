resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "The load balancer of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "task" {
  name        = "${var.name}-task"
  description = "The tasks of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.allowed_cidrs

  security_group_id = aws_security_group.balancer.id
  description       = "Clients"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

locals {
  # What the load balancer connects to.
  ports = { traffic = var.grpc_port, health = var.health_port }
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each = local.ports

  security_group_id            = aws_security_group.balancer.id
  description                  = each.key
  referenced_security_group_id = aws_security_group.task.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_ingress_rule" "task" {
  for_each = local.ports

  security_group_id            = aws_security_group.task.id
  description                  = each.key
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

# For images, the log and secrets. What else the server connects to needs rules of its own.
resource "aws_vpc_security_group_egress_rule" "task" {
  security_group_id = aws_security_group.task.id
  description       = "Images, log, secrets"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
